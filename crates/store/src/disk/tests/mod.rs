//! What only a store with a file can get wrong.

mod crashes;
mod damage;
mod opening;

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::DiskStore;
use crate::{
    LogStore,
    conformance::{Log, World},
};

/// A folder, a path for a store in it, and a history to store.
struct Scene {
    folder: TempDir,
    path: PathBuf,
    world: World,
    logs: Vec<Log>,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let world = World::new(1);
        let logs = (0..5).map(|number| world.author(number)).collect();
        Scene {
            folder,
            path,
            world,
            logs,
        }
    }

    /// A store with three runs by each of five authors, closed again.
    fn filled() -> Scene {
        let mut scene = Scene::new();
        let store = DiskStore::create(&scene.path).unwrap();
        scene.world.found(&store);
        for events in [3, 70, 2] {
            let runs: Vec<_> = scene.logs.iter_mut().map(|log| log.run(events)).collect();
            let _ = store.append(&runs).unwrap();
        }
        scene
    }

    fn open(&self) -> DiskStore {
        DiskStore::open(&self.path).unwrap()
    }

    /// Checks that each log is served whole, or not at all and with an error that says so.
    /// Returns whether all were served.
    fn serves_whole_or_reports(&self, store: &dyn LogStore) -> bool {
        let space = self.world.space();
        let mut whole = true;
        for log in &self.logs {
            let end = log.head().unwrap().seq;
            match store.read_runs(&space, &[log.want(0, end)], usize::MAX) {
                Ok(runs) if runs.len() == log.runs.len() => {
                    for (run, expected) in runs.iter().zip(&log.runs) {
                        assert_eq!(run.bytes, *expected.run().as_bytes());
                    }
                }
                // What precedes the damage is served; asking on shows it.
                Ok(runs) => {
                    for (run, expected) in runs.iter().zip(&log.runs) {
                        assert_eq!(run.bytes, *expected.run().as_bytes());
                    }
                    whole = false;
                }
                Err(_) => whole = false,
            }
            for event in log.events().iter().step_by(7) {
                match store.event(&space, &log.author(), event.header.seq) {
                    Ok(Some(found)) => assert_eq!(found, *event),
                    Ok(None) | Err(_) => whole = false,
                }
            }
            match store.head(&space, &log.author()) {
                Ok(Some(head)) => assert_eq!(Some(head.entry.head), log.head()),
                Ok(None) | Err(_) => whole = false,
            }
        }
        whole
    }
}

fn flip(path: &Path, at: usize, mask: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= mask;
    fs::write(path, bytes).unwrap();
}

/// Keeps panics of redb, which end as errors here, out of the tests' output.
fn quiet_redb() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or("", |place| place.file());
        if !place.contains("redb-") {
            loud(panic);
        }
    }));
}
