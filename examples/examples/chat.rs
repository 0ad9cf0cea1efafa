//! A chat for the terminal: several people, several channels, no server.
//!
//! ```text
//! 1$ cargo run -p headwater-examples --example chat -- new ann       # prints a ticket
//! 2$ cargo run -p headwater-examples --example chat -- join TICKET ben
//! 3$ cargo run -p headwater-examples --example chat -- join TICKET-OF-BEN cem
//! ```
//!
//! Any participant's ticket will do, and the first one may leave. It needs no internet: the tickets
//! hold addresses on this machine. Everybody holds everything, in memory and under a fresh key at
//! each start; an application would keep both in files (`DiskStore`).

use std::{collections::HashMap, env, error::Error, fmt, io::stdin};

use headwater::{
    ALPN, AuthorId, AuthorSecret, ChannelId, Event, EventDraft, Headwater, Kind, Open, Space,
    SpaceId, SubscribeFrom, SubscriptionItem, generate_author, now_ms,
};
use headwater_gossip::{BridgeEvent, GossipBridge, LiveSpace, TopicSecret};
use iroh::{
    Endpoint, EndpointAddr, address_lookup::MemoryLookup, endpoint::presets, protocol::Router,
};
use iroh_gossip::{ALPN as GOSSIP_ALPN, net::Gossip};
use iroh_tickets::endpoint::EndpointTicket;
use n0_future::StreamExt;
use tokio::sync::mpsc;

/// A message, and what its author is called: the payload is the text.
const MESSAGE: Kind = 16;
const NAME: Kind = 17;

const HELP: &str = "\
/join CHANNEL  talk in another channel, and show what was said there
/who           who has been here
/ticket        a ticket for somebody else
/quit          leave (or Ctrl-D)
anything else is said in the channel";

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (ticket, name) = match words[..] {
        ["new", name] => (None, name),
        ["join", ticket, name] => (Some(Ticket::parse(ticket)?), name),
        _ => return Err("usage: chat new NAME | chat join TICKET NAME".into()),
    };

    // The node, and the bridge that keeps its spaces live, share an endpoint and a router.
    let addresses = MemoryLookup::new();
    let endpoint = Endpoint::builder(presets::Minimal).address_lookup(addresses.clone());
    let endpoint = endpoint.clear_ip_transports().bind_addr("127.0.0.1:0")?;
    let endpoint = endpoint.bind().await?;
    let node = Headwater::builder().policy(Open).spawn(endpoint.clone());
    let gossip = Gossip::builder().spawn(endpoint.clone());
    let router = Router::builder(endpoint)
        .accept(ALPN, node.clone())
        .accept(GOSSIP_ALPN, gossip.clone())
        .spawn();
    let bridge = GossipBridge::builder(node.clone(), gossip).spawn();

    let me = generate_author();
    let (space, secret, peers) = match ticket {
        None => {
            // As good as any 32 bytes of randomness.
            let secret = generate_author().to_bytes();
            let space = node.create_space(&me).await?;
            space.set_topic_secret(&me, secret).await?;
            (space, secret, vec![])
        }
        Some(told) => {
            addresses.add_endpoint_info(told.peer.clone());
            (node.space(told.space), told.secret, vec![told.peer.id])
        }
    };
    let topic = TopicSecret::from_bytes(secret);
    let live = bridge.join(space.id(), topic, peers.clone()).await?;
    if !peers.is_empty() {
        println!("looking for the others ...");
        // What was written before we came is stored here then.
        let mut events = live.events();
        events
            .any(|event| event == BridgeEvent::HistoryComplete)
            .await;
    }
    let ticket = Ticket {
        space: space.id(),
        secret,
        peer: router.endpoint().addr(),
    };
    let mut chat = Chat {
        ticket,
        space,
        live,
        me,
        channel: "lobby".to_owned(),
        names: HashMap::new(),
        said: Vec::new(),
    };
    let talked = chat.run(name).await;
    bridge.shutdown().await;
    router.shutdown().await?;
    talked
}

struct Chat {
    ticket: Ticket,
    space: Space,
    live: LiveSpace,
    me: AuthorSecret,
    channel: String,
    names: HashMap<AuthorId, String>,
    /// Every message, in the order it came.
    said: Vec<Event>,
}

impl Chat {
    async fn run(&mut self, name: &str) -> Result<(), Failed> {
        println!("{HELP}\nticket: {}", self.ticket);
        let mut items = self.space.subscribe(SubscribeFrom::Start);
        let mut is_live = false;
        self.write(NAME, name).await?;
        let mut lines = lines();
        loop {
            tokio::select! {
                item = items.next() => match item.ok_or("the space has ended")?? {
                    SubscriptionItem::Event(event) => self.take(event, is_live),
                    SubscriptionItem::CaughtUp => {
                        is_live = true;
                        self.show_channel();
                    }
                    _ => {}
                },
                line = lines.recv() => match line.as_deref().map(str::trim) {
                    None | Some("/quit") => return Ok(()),
                    Some("") => {}
                    Some("/who") => self.show_people(),
                    Some("/ticket") => println!("ticket: {}", self.ticket),
                    Some(line) => match line.strip_prefix("/join ") {
                        // A channel's name has 1 to 64 bytes.
                        Some(channel) if ChannelId::new(channel).is_ok() => {
                            channel.clone_into(&mut self.channel);
                            self.show_channel();
                        }
                        None if !line.starts_with('/') => self.write(MESSAGE, line).await?,
                        _ => println!("{HELP}"),
                    },
                },
            }
        }
    }

    async fn write(&self, kind: Kind, text: &str) -> Result<(), Failed> {
        let mut draft = EventDraft::new(kind, now_ms(), text.to_owned());
        if kind == MESSAGE {
            draft.channel = Some(ChannelId::new(&self.channel)?);
        }
        self.space.append(&self.me, draft).await?;
        Ok(())
    }

    /// Takes what anybody wrote, ourselves included.
    fn take(&mut self, event: Event, is_live: bool) {
        match event.header.kind {
            MESSAGE => {
                if is_live {
                    self.show(&event);
                }
                self.said.push(event);
            }
            NAME => {
                let name = text(&event);
                if is_live && event.header.author != self.me.id() {
                    println!("* {name} is here");
                }
                self.names.insert(event.header.author, name);
            }
            _ => {}
        }
    }

    fn show_channel(&mut self) {
        // Clocks order what is shown and nothing else: logs know no common time.
        self.said.sort_by_key(|event| event.header.timestamp_ms);
        println!("--- {} ---", self.channel);
        self.said.iter().for_each(|event| self.show(event));
    }

    /// Shows a message, if it was said in this channel.
    fn show(&self, event: &Event) {
        let (author, channel) = (&event.header.author, &event.header.channel);
        if channel.as_ref().and_then(ChannelId::as_str) == Some(&self.channel) {
            let name = self.names.get(author).map_or("somebody", String::as_str);
            println!("[{}] {name}: {}", self.channel, text(event));
        }
    }

    fn show_people(&self) {
        let names: Vec<_> = self.names.values().map(String::as_str).collect();
        let neighbors = self.live.status().neighbors.len();
        println!("{}; {neighbors} direct neighbours", names.join(", "));
    }
}

/// The payload as text that cannot steer the terminal.
fn text(event: &Event) -> String {
    let payload = event.payload.as_deref().unwrap_or_default();
    let text = String::from_utf8_lossy(payload);
    text.chars().filter(|char| !char.is_control()).collect()
}

/// Lines as they are typed; ends with the input.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut lines = stdin().lines().map_while(Result::ok);
        lines.all(|line| sender.blocking_send(line).is_ok())
    });
    receiver
}

/// What a newcomer needs: which space, how to find its topic, and somebody who is there.
struct Ticket {
    space: SpaceId,
    secret: [u8; 32],
    peer: EndpointAddr,
}

impl Ticket {
    fn parse(text: &str) -> Result<Self, Failed> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or("this is no ticket");
        Ok(Self {
            space: part()?.parse()?,
            // Written like the id of a space: 32 bytes in hex.
            secret: *part()?.parse::<SpaceId>()?.as_bytes(),
            peer: part()?.parse::<EndpointTicket>()?.endpoint_addr().clone(),
        })
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = SpaceId::from_bytes(self.secret);
        let peer = EndpointTicket::new(self.peer.clone());
        write!(f, "{}.{secret}.{peer}", self.space)
    }
}
