//! Receipts between whole nodes: who signed what they answered, and what two of them show.

use headwater::{Contradiction, HeadsDigest, MemoryStore, Receipt, Space, SyncOutcome, node_key};
use iroh::SecretKey;
use tokio::runtime::Handle;

use crate::{
    gate::GatedStore,
    nodes::{Node, author, endpoint_of, filled, open, seq_of, write},
};

/// Two nodes under one key that hold the same space, as many times written to, with different events.
struct TwoFaces {
    open: Node,
    shut: Node,
    carrier: Node,
    /// As each of them has it.
    spaces: [Space; 2],
}

impl TwoFaces {
    async fn new() -> Self {
        let key = SecretKey::generate();
        // One node to its readers, and two stores behind it.
        let open_face = Node::on(open(), endpoint_of(key.clone()).await);
        let shut_face = Node::on(open(), endpoint_of(key).await);
        let carrier = Node::spawn().await;
        let space = filled(&open_face.headwater, 0, 0).await;
        let carried = carrier.space(space.id());
        carried.sync_with(open_face.addr()).await.expect("synced");
        let hidden = shut_face.space(space.id());
        hidden.sync_with(carrier.addr()).await.expect("synced");
        write(&space, 1, "for some", 5).await;
        write(&hidden, 2, "for others", 5).await;
        Self {
            open: open_face,
            shut: shut_face,
            carrier,
            spaces: [space, hidden],
        }
    }
}

/// The receipt of a node that holds nothing of the space, and asks for the first time: each asks
/// with the same bytes.
async fn of_a_newcomer(space: &Space, provider: &Node) -> Receipt {
    let newcomer = Node::spawn().await;
    let copy = newcomer.space(space.id());
    let report = copy.sync_with(provider.addr()).await.expect("synced");
    newcomer.shutdown().await;
    report.receipt.expect("a receipt")
}

#[tokio::test]
async fn a_sync_ends_with_a_receipt_that_verifies_under_the_providers_id_and_no_other() {
    let (provider, reader) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&provider.headwater, 3, 5).await;
    let copy = reader.space(space.id());
    let report = copy.sync_with(provider.addr()).await.expect("synced");

    let receipt = report.receipt.expect("a receipt");
    assert_eq!(receipt.provider, node_key(provider.addr().id));
    assert_eq!(receipt.verify(), Ok(true));
    for other in [node_key(reader.addr().id), author(0).id().into()] {
        let provider = other;
        let receipt = Receipt {
            provider,
            ..receipt
        };
        assert_eq!(receipt.verify(), Ok(false));
    }
    let mut facts = receipt.facts;
    facts.events += 1;
    assert_eq!(Receipt { facts, ..receipt }.verify(), Ok(false));

    let held = space.summary().await.expect("readable").expect("held");
    assert_eq!(receipt.facts.stated, HeadsDigest::EMPTY);
    assert_eq!(receipt.facts.outcome, SyncOutcome::Complete);
    assert_eq!(receipt.facts.events, report.events);
    assert_eq!(receipt.facts.joined_digest, held.digest);
    assert_eq!(receipt.facts.generation, held.generation);

    // So does one that brings nothing, and one that brings more.
    let again = copy.sync_with(provider.addr()).await.expect("synced");
    assert!(again.first_digest_equal);
    let equal = again.receipt.expect("a receipt");
    assert_eq!(equal.facts.stated, held.digest);
    write(&space, 2, "more", 4).await;
    let more = copy.sync_with(provider.addr()).await.expect("synced");
    let more = more.receipt.expect("a receipt");
    assert_eq!((more.facts.events, more.facts.stated), (4, held.digest));
    assert_eq!(equal.contradicts(&more), None);
    reader.shutdown().await;
    provider.shutdown().await;
}

#[tokio::test]
async fn a_report_in_json_holds_all_of_the_receipt() {
    let provider = Node::spawn().await;
    let space = filled(&provider.headwater, 1, 2).await;
    let reader = Node::spawn().await;
    let copy = reader.space(space.id());
    let report = copy.sync_with(provider.addr()).await.expect("synced");
    let json = serde_json::to_value(&report).expect("json");
    let receipt = report.receipt.expect("a receipt");
    let (told, facts) = (&json["receipt"], &json["receipt"]["facts"]);
    assert_eq!(told["provider"], receipt.provider.to_string());
    assert_eq!(told["signature"], receipt.signature.to_string());
    assert_eq!(facts["request"], receipt.facts.request.to_string());
    assert_eq!(facts["outcome"], "complete");
    assert_eq!(facts["generation"], receipt.facts.generation);
    reader.shutdown().await;
    provider.shutdown().await;
}

#[tokio::test]
async fn two_providers_of_which_one_withholds_an_author_give_receipts_that_contradict() {
    let (whole, short) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&whole.headwater, 2, 5).await;
    let held_back = short.space(space.id());
    held_back.sync_with(whole.addr()).await.expect("synced");
    write(&space, 3, "not for everybody", 5).await;

    let all = of_a_newcomer(&space, &whole).await;
    let less = of_a_newcomer(&space, &short).await;
    assert_eq!(all.facts.request, less.facts.request);
    let shown = Some(Contradiction::TwoProviders);
    assert_eq!(all.contradicts(&less), shown);
    assert_eq!(less.contradicts(&all), shown);

    // It shows no more once both hold the same.
    held_back.sync_with(whole.addr()).await.expect("synced");
    let now = of_a_newcomer(&space, &short).await;
    assert_eq!(all.contradicts(&now), None);
    for node in [whole, short] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn one_provider_that_answers_out_of_one_state_with_and_without_an_author_contradicts_itself()
{
    let faces = TwoFaces::new().await;
    let space = &faces.spaces[0];
    let (open_face, shut_face) = (&faces.open, &faces.shut);

    let for_some = of_a_newcomer(space, open_face).await;
    let for_others = of_a_newcomer(space, shut_face).await;
    let again = of_a_newcomer(space, open_face).await;
    assert_eq!(for_some.facts.generation, for_others.facts.generation);
    assert_eq!(for_some.contradicts(&again), None);
    assert_eq!(
        for_some.contradicts(&for_others),
        Some(Contradiction::OneProvider)
    );
    for node in [faces.open, faces.shut, faces.carrier] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_provider_that_contradicts_itself_is_caught_and_believed_no_more_until_it_is_forgiven() {
    let faces = TwoFaces::new().await;
    let reader = Node::build(open().ask_back(false)).await;
    let node = &reader.headwater;
    let copy = reader.space(faces.spaces[0].id());
    let peer = faces.open.addr();
    let before = copy.sync_with(faces.shut.addr()).await.expect("synced");
    assert!(before.from_provider);
    assert_eq!((before.refutation, node.is_caught(peer.id)), (None, false));
    // The same key, another store, and as many commits in it.
    faces.shut.shutdown().await;

    let after = copy.sync_with(peer.clone()).await.expect("synced");
    assert_eq!(after.events, 5, "what it sends proves itself");
    let refutation = after.refutation.clone().expect("it added to all it had");
    assert_eq!(refutation.verify(), Ok(true));
    assert_eq!(refutation.provider(), node_key(peer.id));
    assert!(!after.from_provider, "the policy trusts it");
    assert!(node.is_caught(peer.id) && !node.trusts(peer.id, copy.id()));
    assert_eq!(node.refutations(), [*refutation]);
    assert_eq!(node.metrics().providers_caught.get(), 1);
    let json = serde_json::to_value(&after).expect("json");
    let told = &json["refutation"]["later"]["receipt"]["provider"];
    assert_eq!(*told, node_key(peer.id).to_string());

    // Nobody else is.
    let carried = copy.sync_with(faces.carrier.addr()).await.expect("synced");
    assert!(carried.from_provider && carried.refutation.is_none());
    assert!(node.forgive(peer.id) && !node.forgive(peer.id));
    assert!(node.trusts(peer.id, copy.id()));
    let again = copy.sync_with(peer).await.expect("synced");
    assert!(again.from_provider && again.refutation.is_none());
    for node in [faces.open, faces.carrier, reader] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_provider_whose_store_grows_during_a_sync_signs_nothing_and_signs_the_next() {
    let (store, gate) = GatedStore::new(MemoryStore::new(), usize::MAX);
    let provider = Node::build(open().store(store)).await;
    let space = filled(&provider.headwater, 2, 5).await;
    let reader = Node::spawn().await;
    let copy = reader.space(space.id());
    let (runtime, growing) = (Handle::current(), space.clone());
    gate.before_read(move || {
        runtime.block_on(write(&growing, 3, "meanwhile", 5));
    });

    let report = copy.sync_with(provider.addr()).await.expect("synced");
    assert_eq!(seq_of(&space, author(3).id()).await, 5);
    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_eq!(report.receipt, None);

    // Without that, an honest node would have given two answers out of one state.
    let next = of_a_newcomer(&space, &provider).await;
    let after = of_a_newcomer(&space, &provider).await;
    assert_eq!(next.facts.events, 16);
    assert_eq!(next.contradicts(&after), None);
    reader.shutdown().await;
    provider.shutdown().await;
}
