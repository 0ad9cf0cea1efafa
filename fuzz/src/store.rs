//! A disk store opened on a file that somebody wrote into: every answer is an error or what was
//! stored.

use std::{
    fs, panic,
    path::PathBuf,
    sync::{
        Once, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use headwater_proto::TailWant;
use headwater_store::{DiskStore, DiskStoreOptions, LogStore};
use headwater_wire::Run;

use crate::{Script, lot, world};

/// Where the file under test lies: in memory, if the system has a place for that.
fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!(
        "headwater-fuzz-{}-{name}-{number}",
        std::process::id()
    ))
}

/// A sound file.
fn sound() -> &'static [u8] {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let path = scratch("sound");
        let store = DiskStore::create(&path).expect("created");
        let runs = &world().runs;
        for two in runs[..runs.len() - 1].chunks(2) {
            let commit = store.append(two).expect("appended");
            assert!(commit.outcomes.iter().all(Result::is_ok));
        }
        store.settle().expect("settled");
        drop(store);
        let bytes = fs::read(&path).expect("readable");
        fs::remove_file(&path).expect("removed");
        bytes
    })
}

/// redb trusts its file and panics on what cannot be; the store turns that into an error, which is
/// what is tested here. The fuzzer's own hook would end the process before it can. A panic that
/// reaches the fuzzer still ends it.
fn let_the_store_catch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let of_redb = info
                .location()
                .is_some_and(|place| place.file().contains("/redb-"));
            if !of_redb {
                eprintln!("{info}");
            }
        }));
    });
}

pub fn run(data: &[u8]) {
    let_the_store_catch();
    let mut script = Script(data);
    let mut bytes = sound().to_vec();
    if script.byte() == 255 {
        let keep = usize::from(script.byte()) << 13 | usize::from(script.byte());
        bytes.truncate(keep);
    }
    while !script.is_over() {
        // Most of a small file is empty: half of the patches go to its first pages.
        let reach = if script.flag() {
            bytes.len()
        } else {
            64 * 1024
        };
        let at = usize::from(script.byte()) << 16
            | usize::from(script.byte()) << 8
            | usize::from(script.byte());
        let len = usize::from(script.byte() % 32);
        for offset in 0..len {
            let byte = script.byte();
            if let Some(place) = bytes.get_mut(at % reach.max(1) + offset) {
                *place = byte;
            }
        }
    }
    let path = scratch("damaged");
    fs::write(&path, &bytes).expect("written");
    let lot = u64::from(lot(data));
    let checked = DiskStoreOptions::default().check_on_open(true);
    match DiskStore::open_with(&path, checked) {
        Ok(store) => {
            ask_everything(&store, lot);
            let runs = &world().runs;
            store.append(&runs[runs.len() - 2..]).ok();
            store.settle().ok();
        }
        // Where redb's own check finds something, redb may panic while it cleans up after a panic
        // as soon as it writes, if only to close the file. That ends the process: nothing is
        // acknowledged then, but nothing can be tested either. So these are read, and not closed.
        Err(_) => {
            if let Ok(store) = DiskStore::open(&path) {
                ask_everything(&store, lot);
                std::mem::forget(store);
            }
        }
    }
    // Gives back the room, whoever still holds the file.
    fs::write(&path, []).ok();
    fs::remove_file(&path).ok();
}

/// Asks for some of the events, and for everything else; also for a check of the whole, where every signature
/// is checked, in an eighth of the executions.
fn ask_everything(store: &DiskStore, lot: u64) {
    let world = world();
    let space = &world.space;
    store.spaces().ok();
    store.summary(space).ok();
    store.heads(space, None, 10).ok();
    let mut stated = Vec::new();
    for author in &world.authors {
        if let Ok(Some(record)) = store.head(space, author) {
            stated.push((*author, record.entry.head));
        }
        for seq in (1..=10).filter(|seq| (seq + lot) % 4 == 0) {
            if let Ok(Some(event)) = store.event(space, author, seq) {
                assert!(is_stored(&event.id), "an event that was never stored");
            }
        }
        let want = TailWant {
            author: *author,
            above: 0,
            through: 10,
        };
        for stored in store.read_runs(space, &[want], 1 << 20).unwrap_or_default() {
            let run = Run::decode(stored.bytes).expect("what is served is a run");
            world.verify(run).expect("what is served verifies");
        }
    }
    store.check_tails(space, &stated).ok();
    if lot.is_multiple_of(8) {
        store.verify(space, &mut |_| ()).ok();
    }
}

fn is_stored(id: &headwater_wire::EventId) -> bool {
    world().runs.iter().any(|run| run.ids().contains(id))
}
