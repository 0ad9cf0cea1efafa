//! What is announced, when, and what is not.

use super::*;

fn runs(authors: &[u64]) -> AnnouncerOutput {
    AnnouncerOutput::SendRuns {
        authors: authors.iter().map(|n| author(*n)).collect(),
    }
}

fn heads(authors: &[u64]) -> AnnouncerOutput {
    AnnouncerOutput::Announce {
        changed: authors.iter().map(|n| author(*n)).collect(),
        periodic: false,
    }
}

const DIGEST: AnnouncerOutput = AnnouncerOutput::Announce {
    changed: Vec::new(),
    periodic: true,
};

#[test]
fn own_growth_is_announced_at_once_and_then_coalesced() {
    let mut driven = Driven::with_neighbors(2);
    driven.grow(vec![small(7, 1)]);
    assert_eq!(driven.outputs(), [runs(&[7])]);

    for seq in 2..20 {
        driven.grow(vec![small(7, seq)]);
        driven.grow(vec![small(8, seq)]);
        assert_eq!(driven.outputs(), []);
        driven.now += MS;
    }
    let began = driven.now;
    let later = driven.run_for(100 * MS);
    assert_eq!(later.len(), 1);
    assert_eq!(later[0].1, runs(&[7, 8]));
    assert_eq!(later[0].0 + 18 * MS, began + 50 * MS);
}

#[test]
fn a_large_run_is_announced_as_its_head() {
    let mut driven = Driven::with_neighbors(1);
    let sizes = [None, Some(1_024), Some(1_025), Some(usize::MAX), Some(0)];
    let grown = (1..).zip(sizes).map(|(n, size)| Grown {
        author: author(n),
        head_seq: 1,
        size,
    });
    driven.grow(grown.collect());
    assert_eq!(driven.outputs(), [runs(&[2]), heads(&[1, 3, 4, 5])]);
}

#[test]
fn heads_heard_on_the_topic_are_not_announced_again() {
    let mut driven = Driven::with_neighbors(1);
    driven.hear(1, vec![claim(7, 5, 5), claim(8, 5, 0)]);
    driven.grow(vec![small(7, 5)]);
    driven.grow(vec![small(8, 3)]);
    assert_eq!(driven.outputs(), []);
    assert_eq!(driven.it.status().counters.not_repeated, 2);

    driven.grow(vec![small(7, 6)]);
    assert_eq!(driven.outputs(), [runs(&[7])], "above what was heard");
}

#[test]
fn a_head_that_waits_is_dropped_when_somebody_else_announces_it() {
    let mut driven = Driven::with_neighbors(1);
    driven.grow(vec![small(7, 1)]);
    driven.outputs();
    driven.grow(vec![small(7, 2), small(8, 2), small(9, 2)]);
    driven.hear(1, vec![claim(7, 2, 2), claim(8, 1, 2), claim(9, 5, 5)]);
    driven.grow(vec![small(9, 5)]);
    let later: Vec<_> = driven.run_for(SECOND).into_iter().map(|o| o.1).collect();
    assert_eq!(later, [runs(&[8])]);
}

#[test]
fn more_heads_than_fit_are_split_and_every_part_fits() {
    let mut driven = Driven::with_neighbors(1);
    driven.grow((0..60).map(|n| large(n, 1)).collect());
    let outputs = driven.run_for(MS);
    let heads = (4_048 - ANNOUNCEMENT_FIXED_BYTES) / HEAD_BYTES;
    assert_eq!(heads, 28);
    assert_eq!(announced(&outputs), [(heads, 0), (heads, 0), (4, 0)]);
    let mut named = Vec::new();
    for (_, output) in outputs {
        if let AnnouncerOutput::Announce { changed, .. } = output {
            named.extend(changed);
        }
    }
    assert_eq!(named, (0..60).map(author).collect::<Vec<_>>());
}

#[test]
fn runs_that_do_not_fit_the_split_are_announced_as_heads() {
    let mut driven = Driven::with_neighbors(1);
    let run = |n| Grown {
        size: Some(1_000),
        ..small(n, 1)
    };
    driven.grow((0..12).map(run).collect());
    let outputs = driven.run_for(MS);
    assert_eq!(announced(&outputs), [(0, 3); 4], "twelve runs fit");
    driven.run_for(SECOND);
    driven.grow((20..33).map(run).collect());
    assert_eq!(announced(&driven.run_for(MS)), [(13, 0)], "13 do not");
}

#[test]
fn heads_beyond_the_split_are_replaced_by_the_digest() {
    for (heads, expected) in [(112, 4), (113, 1), (100_000, 1)] {
        let mut driven = Driven::with_neighbors(1);
        driven.grow((0..heads).map(|n| large(n, 1)).collect());
        let outputs = driven.outputs();
        assert_eq!(outputs.len(), expected);
        assert_eq!(outputs[0] == DIGEST, heads > 112);
    }
}

#[test]
fn a_topic_too_small_for_a_head_carries_digests() {
    let config = AnnouncerConfig {
        max_content_bytes: ANNOUNCEMENT_FIXED_BYTES + HEAD_BYTES - 1,
        ..AnnouncerConfig::default()
    };
    let mut driven = Driven::settled(config, 1, 1);
    driven.grow(vec![large(1, 1)]);
    assert_eq!(driven.outputs(), [DIGEST]);
}

#[test]
fn nothing_is_said_to_nobody_and_what_grew_alone_is_said_to_the_first_neighbor() {
    let mut driven = Driven::alone(AnnouncerConfig::default(), 1);
    driven.grow(vec![large(7, 1)]);
    assert_eq!(driven.it.next_timeout(), None);
    assert_eq!(driven.run_for(1_000 * SECOND), []);
    driven.it.handle_neighbor_up(peer(1), driven.now);
    assert_eq!(driven.outputs(), [heads(&[7])]);
}

#[test]
fn what_came_by_a_sync_is_announced_only_if_nobody_turns_out_to_have_it() {
    let mut driven = Driven::with_neighbors(1);
    let digest = driven.fresh_digest();
    driven
        .it
        .handle_synced(digest, vec![small(7, 5)], driven.now);
    assert_eq!(driven.outputs(), []);
    let began = driven.now;
    let later = driven.run_for(SECOND);
    assert_eq!(later.len(), 1);
    assert_eq!(later[0].1, heads(&[7]));
    let waited = later[0].0.saturating_sub(began);
    assert!((500 * MS..700 * MS).contains(&waited), "{waited:?}");

    let digest = driven.fresh_digest();
    driven
        .it
        .handle_synced(digest, vec![small(8, 5), small(9, 5)], driven.now);
    driven.hear(1, vec![claim(8, 5, 5)]);
    driven.hear_digest(1, 1, digest);
    assert_eq!(driven.run_for(2 * SECOND), []);
}

#[test]
fn a_sync_that_leads_to_a_digest_heard_before_is_news_to_nobody() {
    let mut driven = Driven::with_neighbors(1);
    driven.it.handle_announcement(
        HeardAnnouncement {
            from: peer(1),
            delivered_by: peer(1),
            digest: digest(77),
            periodic: false,
            claims: vec![claim(7, 6, 0)],
            forks: Vec::new(),
        },
        driven.now,
    );
    let id = driven.next_pull().unwrap();
    let brought = vec![small(6, 3), small(7, 6)];
    driven.it.handle_synced(digest(77), brought, driven.now);
    driven.complete(id);
    let outputs = driven.run_for(2 * SECOND);
    assert_eq!(announced(&outputs), []);
}

#[test]
fn what_is_written_during_a_catch_up_is_announced_at_once_however_large() {
    let mut driven = Driven::alone(AnnouncerConfig::default(), 1);
    driven.it.handle_neighbor_up(peer(1), driven.now);
    let id = driven.next_pull().unwrap();
    driven
        .it
        .handle_synced(digest(1), vec![large(6, 9)], driven.now);
    driven.grow(vec![large(8, 1)]);
    assert_eq!(driven.outputs(), [heads(&[8])]);
    driven.complete(id);
    assert_eq!(announced(&driven.run_for(SECOND)), [], "once");
}

#[test]
fn what_ended_an_isolation_is_no_news() {
    let mut driven = Driven::alone(AnnouncerConfig::default(), 1);
    driven.it.handle_neighbor_up(peer(1), driven.now);
    let id = driven.next_pull().unwrap();
    driven.it.handle_synced(
        digest(1),
        (0..50).map(|n| small(n, 9)).collect(),
        driven.now,
    );
    driven.complete(id);
    assert_eq!(announced(&driven.run_for(SECOND)), []);
}
