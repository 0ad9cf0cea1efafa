//! What the bridges of this process write into the trace.

use std::{
    fmt::{self, Write},
    sync::{Mutex, OnceLock, PoisonError},
};

use iroh::EndpointId;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, filter,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

static LINES: OnceLock<Mutex<Vec<String>>> = OnceLock::new();

/// Begins to keep lines, if that has not begun. For the whole process: the tasks that write them
/// run on threads of their own.
pub(crate) fn keep() {
    LINES.get_or_init(|| {
        let of_bridges = |of: &Metadata<'_>| {
            of.target().starts_with("headwater_gossip") && *of.level() <= Level::DEBUG
        };
        let layer = Keep.with_filter(filter::filter_fn(of_bridges));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::set_global_default(subscriber).expect("no other subscriber");
        Mutex::default()
    });
}

/// How many lines name one of these peers and hold this text.
pub(crate) fn naming(peers: &[EndpointId], text: &str) -> u64 {
    let peers: Vec<_> = peers.iter().map(|it| it.fmt_short().to_string()).collect();
    let lines = LINES.get().expect("lines are kept").lock();
    let lines = lines.unwrap_or_else(PoisonError::into_inner);
    let found = lines
        .iter()
        .filter(|line| line.contains(text) && peers.iter().any(|peer| line.contains(peer)));
    found.count() as u64
}

struct Keep;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        if let Some(lines) = LINES.get() {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(line.0);
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{field}={value:?} ").expect("memory is there");
    }
}
