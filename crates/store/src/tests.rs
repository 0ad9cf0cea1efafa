//! Both stores, by the same sentences.

use proptest::prelude::*;

use crate::{
    DiskStore, LogStore, MemoryStore,
    conformance::{Delivery, ForkPlan, Step, check_exchange, check_history},
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
    let bound = (any::<u8>(), prop::option::of(any::<u8>()));
    let proof = (any::<u8>(), any::<u8>());
    let run = (any::<u8>(), any::<u8>(), 0u8..9, prop::bool::weighted(0.1));
    let step = (
        prop::collection::vec(bound, 0..2),
        prop::collection::vec(proof, 0..2),
        prop::collection::vec(run, 0..6),
    );
    let step = step.prop_map(|(bounds, proofs, runs)| Step {
        bounds,
        proofs,
        runs,
    });
    prop::collection::vec(step, 1..30)
}

fn deliveries() -> impl Strategy<Value = Delivery> {
    let two = || (any::<u8>(), any::<u8>());
    prop_oneof![
        5 => two().prop_map(|(to, branch)| Delivery::Next { to, branch }),
        1 => (two(), any::<u8>())
            .prop_map(|((to, branch), run)| Delivery::Run { to, branch, run }),
        1 => (any::<u8>(), two(), two())
            .prop_map(|(to, branches, runs)| Delivery::Proof { to, branches, runs }),
        1 => (any::<u8>(), prop::option::of(0u8..16))
            .prop_map(|(to, through)| Delivery::Bound { to, through }),
    ]
}

fn fork_plans() -> impl Strategy<Value = ForkPlan> {
    let branch = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>());
    (
        prop::collection::vec(branch, 1..6),
        prop::collection::vec(deliveries(), 0..50),
        prop::option::weighted(0.3, 0u8..16),
    )
        .prop_map(|(branches, deliveries, bound)| ForkPlan {
            branches,
            deliveries,
            bound,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn stores_told_anything_in_any_order_agree_once_they_exchanged_it(plan in fork_plans()) {
        let stores = [MemoryStore::new(), MemoryStore::new(), MemoryStore::new()];
        check_exchange(&stores.each_ref().map(|store| store as &dyn LogStore), 1, &plan);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_store_on_disk_agrees_with_those_in_memory(plan in fork_plans()) {
        let folder = tempfile::tempdir().unwrap();
        let disk = DiskStore::create(folder.path().join("store")).unwrap();
        let (one, other) = (MemoryStore::new(), MemoryStore::new());
        check_exchange(&[&disk, &one, &other], 1, &plan);
    }
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
