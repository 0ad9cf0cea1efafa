//! Both stores, by the same sentences.

use proptest::prelude::*;

use crate::{
    DiskStore, LogStore, MemoryStore,
    conformance::{Step, check_history},
};

fn on_memory(check: fn(&dyn LogStore)) {
    check(&MemoryStore::new());
}

fn on_disk(check: fn(&dyn LogStore)) {
    let folder = tempfile::tempdir().unwrap();
    check(&DiskStore::create(folder.path().join("store")).unwrap());
}

mod memory {
    use super::on_memory;

    crate::conformance_tests!(on_memory);
}

mod disk {
    use super::on_disk;

    crate::conformance_tests!(on_disk);
}

fn histories() -> impl Strategy<Value = Vec<Step>> {
    let run = (any::<u8>(), any::<u8>(), 0u8..9, prop::bool::weighted(0.1));
    let step = prop::collection::vec(run, 0..6).prop_map(|runs| Step { runs });
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_history_agrees_with_the_model_in_memory(history in histories()) {
        check_history(&MemoryStore::new(), &history);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_history_agrees_with_the_model_on_disk(history in histories()) {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::create(folder.path().join("store")).unwrap();
        check_history(&store, &history);
    }
}
