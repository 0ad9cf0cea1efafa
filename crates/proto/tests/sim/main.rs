//! Requester and responder against each other, and each against a peer that breaks the rules.
//!
//! Everything is drawn from a seed: what the two sides hold, and in which order messages arrive
//! and stores answer. A failing run prints its seed; `HEADWATER_SEED=<n>` replays that one alone,
//! `HEADWATER_SEED_FACTOR=<n>` draws n times as many.

mod cuts;
mod forks;
mod hostile_net;
mod hostile_requester;
mod hostile_responder;
mod logs;
mod pulls;
mod receipts;
mod rng;
mod simulator;
mod tampering;
