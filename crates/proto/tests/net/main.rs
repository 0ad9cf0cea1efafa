//! Announcers by the dozen, or by the thousand, on a simulated gossip topic.
//!
//! ```text
//! Announcer ── Announce ──▶ overlay of about five links a node: copies with delay, loss, partition
//!           ── Pull     ──▶ after a delay both sides hold what either held, or it fails
//! ```
//!
//! Everything is drawn from a seed. A failing run prints it; `HEADWATER_SEED=<n>` replays that one
//! alone, `HEADWATER_SEED_FACTOR=<n>` draws n times as many. `HEADWATER_NET_NODES=10,100,1000` and
//! the ignored test print the table of `docs/gossip-scale.md`:
//!
//! ```text
//! cargo nextest run --release -p headwater-proto --test net --run-ignored only --no-capture
//! ```

mod heal;
mod liars;
mod network;
mod node;
mod overlay;
mod quiet;
#[path = "../sim/rng.rs"]
mod rng;
mod spread;
mod table;
