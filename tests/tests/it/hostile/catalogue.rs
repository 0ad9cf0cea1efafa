//! Every rule a peer can break, what a node answers, and the tests that show it: the one place.
//!
//! A row's own tests are made of it by the macro, so that it cannot name one that does not run. What
//! no peer can do over the wire is tested where it can be done: a row then names the file and the
//! function, and a test here looks whether they are there. `just hostile` runs all of them and
//! writes `docs/hostile-peers.md`; a test here fails if that file has other rows than this one.

use std::{collections::HashMap, env, fmt::Write as _, fs, path::PathBuf};

/// A rule, and what shows that it holds.
struct Row {
    number: u32,
    input: &'static str,
    answer: &'static str,
    shown: &'static [Shown],
}

/// A test, by its file from the root of the repository and its name.
struct Shown {
    file: &'static str,
    test: &'static str,
}

macro_rules! catalogue {
    ($([$number:literal] $input:literal => $answer:literal {
        $($module:ident::$test:ident)*
        $(; $($file:literal $there:ident)+)?
    })*) => {
        const ROWS: &[Row] = &[$(Row {
            number: $number,
            input: $input,
            answer: $answer,
            shown: &[
                $(Shown {
                    file: concat!("tests/tests/it/hostile/", stringify!($module), ".rs"),
                    test: stringify!($test),
                },)*
                $($(Shown { file: $file, test: stringify!($there) },)+)?
            ],
        },)*];

        $($(
            #[tokio::test]
            async fn $test() {
                super::$module::$test().await;
            }
        )*)*
    };
}

catalogue! {
    [1] "A frame cut off, then the end of the stream" => "Stream reset with `Truncated`; whole verified runs before it may stay" {
        frames::a_request_cut_off_in_mid_frame_is_reset_as_truncated
        frames::a_batch_cut_off_in_mid_frame_leaves_the_whole_ones_before_it
    }
    [2] "A length of 2^32 for a frame, or of 2^62 inside one" => "Connection closed with `Malformed` before anything is reserved" {
        frames::a_frame_of_four_gibibytes_is_refused_by_its_length_alone
        frames::a_frame_one_byte_above_the_limit_is_refused_by_its_length_alone
        frames::an_answer_of_four_gibibytes_is_refused_by_its_length_alone
        frames::a_run_that_claims_2_to_the_62_bytes_reserves_nothing;
        "crates/wire/src/frame.rs" a_buffer_grows_with_what_arrives_and_not_with_what_is_claimed
    }
    [3] "Bytes that are promised and never come" => "Stream reset with `TimedOut`; the buffer grows only with what arrives" {
        frames::promised_bytes_that_never_come_end_with_a_timeout
    }
    [4] "A number longer than needed, or too large" => "Connection closed with `Malformed`" {
        frames::a_varint_longer_than_needed_is_malformed
        frames::a_varint_above_64_bits_is_malformed
    }
    [5] "A message of an unknown kind" => "Stream reset with `Unsupported`; kinds declared as additions are skipped" {
        frames::an_unknown_tag_resets_the_stream_and_leaves_the_connection
        frames::an_unknown_additive_message_is_skipped
    }
    [6] "Bytes left over in a frame" => "Connection closed with `Malformed`" {
        frames::a_byte_too_many_in_a_frame_is_malformed
    }
    [7] "Empty frames without end" => "Connection closed with `Malformed` at the first" {
        frames::empty_frames_for_ever_end_with_the_first
    }
    [8] "A count above what the bytes can hold" => "Connection closed with `Malformed`; nothing is reserved by a count" {
        frames::a_count_above_what_the_frame_can_hold_reserves_nothing;
        "crates/wire/tests/allocation.rs" decoding_any_bytes_allocates_a_small_multiple_of_them
    }
    [9] "Deep nesting" => "Cannot be written: the format is flat. A full frame of any one byte is refused" {
        frames::the_same_byte_a_million_times_is_refused_whatever_the_tag_says
    }
    [10] "A message at the wrong time, or of the other role" => "Connection closed with `ProtocolViolation`" {
        requests::heads_before_a_request_close_the_connection
        requests::a_second_request_on_a_stream_closes_the_connection
        requests::a_responders_message_from_a_requester_closes_the_connection
        requests::a_requesters_message_from_a_responder_closes_the_connection
        requests::a_batch_before_a_plan_closes_the_connection
        requests::an_end_before_a_plan_closes_the_connection
        requests::a_plan_of_the_same_segment_twice_closes_the_connection
        requests::heads_after_the_last_close_the_connection
    }
    [11] "A clock of more authors than allowed, a million of them too" => "Stream reset with `TooManyAuthors`" {
        clocks::a_clock_of_a_million_authors_is_refused_at_the_limit
        clocks::one_author_above_the_configured_limit_is_too_many
        clocks::an_empty_chunk_that_promises_another_closes_the_connection
    }
    [12] "An author stated twice" => "Connection closed with `ProtocolViolation`" {
        clocks::an_author_stated_twice_closes_the_connection
        clocks::an_author_stated_twice_across_two_chunks_closes_the_connection
    }
    [13] "Authors out of order" => "Connection closed with `ProtocolViolation`" {
        clocks::authors_out_of_order_close_the_connection
    }
    [14] "A head at seq 0" => "Connection closed with `Malformed`" {
        clocks::a_head_at_seq_0_closes_the_connection
    }
    [15] "A seq above 2^53, up to the highest there is" => "Connection closed with `Malformed`" {
        clocks::a_head_at_the_highest_number_there_is_closes_the_connection
        runs::a_run_past_the_highest_seq_is_refused
    }
    [16] "A range whose end lies before its start" => "Connection closed with `Malformed`" {
        requests::a_range_whose_end_lies_before_its_start_closes_the_connection
    }
    [17] "A head beyond what the node holds" => "No error: there is nothing to serve" {
        clocks::a_head_beyond_ours_is_no_error_and_asks_for_nothing
    }
    [18] "A head that is claimed and never served" => "Claims are hints: one pull fails, the peer loses its turn" {
        crowds::a_head_that_is_claimed_and_never_served_costs_one_pull_that_times_out;
        "tests/tests/it/gossip/hostile.rs" heads_that_are_never_delivered_are_given_up
    }
    [19] "A space the node does not hold, or not for this peer" => "Stream reset with `Refused`, the same in bytes and in time" {
        requests::an_unknown_space_and_a_refused_one_look_and_take_alike;
        "tests/tests/it/access/refusals.rs" unknown_refused_and_unserved_spaces_give_the_same_bytes_by_the_same_steps
    }
    [20] "Looking for spaces by guessing" => "Each miss costs as much as 4 MiB; then `Busy` and when to come again" {
        crowds::a_peer_that_looks_for_spaces_is_soon_told_to_wait
    }
    [21] "A run of another space" => "Connection closed with `InvalidRun`; nothing stored" {
        runs::a_run_of_another_space_is_refused
        runs::the_genesis_of_another_space_is_refused
    }
    [22] "A run of an author who is not due" => "Connection closed with `InvalidRun`; nothing stored" {
        runs::a_run_of_an_author_outside_the_planned_segment_is_refused
        runs::authors_of_a_segment_out_of_order_are_refused
    }
    [23] "A run outside of what was asked for" => "Connection closed with `InvalidRun`, or `PlanExceeded` above a budget; nothing stored" {
        runs::a_run_below_the_stated_head_is_refused
        answers::runs_beyond_the_requested_budget_are_refused
    }
    [24] "A gap, or runs out of order" => "Connection closed with `InvalidRun`; nothing stored" {
        runs::a_run_with_a_gap_before_it_is_refused
        runs::runs_in_the_wrong_order_are_refused
    }
    [25] "The same run again" => "In a history `InvalidRun`; on a live stream no effect" {
        runs::the_same_run_twice_in_a_history_is_refused
        answers::the_same_run_again_on_a_live_stream_changes_nothing
    }
    [26] "A fork: two events of one author at one seq" => "The log is cut below it everywhere, the application is told, the peer is not blamed, others go on" {
        ; "tests/tests/it/syncing.rs" a_forked_author_is_cut_and_the_others_go_on
        "tests/tests/it/forks/branches.rs" two_nodes_with_a_branch_each_end_equal_and_both_applications_are_told
        "tests/tests/it/forks/branches.rs" a_log_that_forks_at_its_first_event_shows_nothing_anywhere
        "tests/tests/it/forks/branches.rs" a_lower_fork_found_later_cuts_lower_everywhere_and_is_told_once_more
    }
    [27] "Another `prev` under a valid signature" => "As a fork: nothing is shown from there on, the peer is not blamed" {
        runs::a_signed_run_on_another_chain_is_its_authors_fault_and_not_taken
    }
    [28] "A wrong signature" => "Connection closed with `InvalidRun` before anything is written" {
        runs::a_wrong_signature_is_refused
        runs::a_changed_payload_is_refused
        runs::another_authors_signature_is_refused
    }
    [29] "A key of small order" => "Connection closed with `InvalidRun`" {
        runs::a_key_of_small_order_is_refused
    }
    [30] "A signature with S not below the group's order" => "Connection closed with `InvalidRun`" {
        runs::a_signature_with_s_above_the_group_order_is_refused
    }
    [31] "A key that is no point of the curve" => "Connection closed with `InvalidRun`" {
        runs::a_key_off_the_curve_is_refused
    }
    [32] "A key or a signature's point in another encoding" => "Connection closed with `InvalidRun`" {
        runs::a_key_in_its_second_encoding_is_refused
        runs::a_signature_whose_point_is_not_canonical_is_refused
    }
    [33] "A signature its author made for another protocol" => "Connection closed with `InvalidRun`: the signed bytes begin with ours' name" {
        runs::a_signature_made_for_another_protocol_is_refused
    }
    [34] "A payload, or a run, above the limit" => "Connection closed with `Malformed` before anything is hashed" {
        runs::a_payload_above_the_limit_is_refused_before_it_is_hashed
        runs::a_run_of_more_events_than_one_signature_may_cost_is_refused
        frames::a_run_that_is_none_is_malformed
    }
    [35] "The id of another request" => "Connection closed with `ProtocolViolation`" {
        requests::heads_for_another_request_close_the_connection
        requests::an_answer_to_another_request_closes_the_connection
    }
    [36] "A second answer to one request" => "Connection closed with `ProtocolViolation`" {
        requests::a_second_answer_to_a_request_closes_the_connection
    }
    [37] "More than was promised, or less" => "Connection closed with `PlanExceeded` at the first run too many; `ProtocolViolation` if it was less" {
        answers::more_events_than_planned_are_refused
        answers::batches_that_go_on_past_the_plan_for_ever_end_with_the_first_too_many
        answers::more_payload_than_planned_is_refused
        answers::fewer_events_than_planned_are_an_error
    }
    [38] "Empty batches without end" => "Connection closed with `ProtocolViolation` at the first" {
        answers::an_empty_batch_that_promises_more_is_refused
        answers::empty_batches_without_end_stop_at_the_first
    }
    [39] "A reader that takes a byte now and then" => "Stream reset with `TimedOut` below the least rate" {
        pace::a_reader_that_trickles_is_left
        pace::a_responder_that_trickles_is_left;
        "crates/headwater/src/frames.rs" a_trickle_is_no_progress_and_enough_bytes_are
    }
    [40] "A reader that stops" => "Stream reset with `TimedOut`; what is left of it waits in no queue and no transaction" {
        pace::a_reader_that_stops_is_left
        pace::a_reader_that_takes_nothing_of_the_last_window_is_left_after_the_longest_time
    }
    [41] "A peer that is there and says nothing" => "Stream reset with `TimedOut`; a connection without a stream is closed" {
        pace::a_stream_on_which_nothing_is_asked_is_reset
        pace::a_request_whose_heads_never_come_is_reset
        pace::a_responder_that_never_answers_is_left
        pace::a_responder_that_falls_silent_is_left
        crowds::a_connection_on_which_nothing_happens_is_closed
    }
    [42] "A stream reset in mid frame" => "That frame is lost; what was stored stays" {
        pace::a_stream_reset_in_mid_frame_loses_that_frame_and_nothing_else
    }
    [43] "A connection lost in mid batch" => "Whole batches stay; the next sync goes on from them" {
        pace::a_connection_lost_in_mid_batch_leaves_what_came_and_the_next_sync_goes_on
        pace::a_peer_killed_in_mid_sync_again_and_again_is_served_when_it_comes_back
    }
    [44] "Ten thousand streams of one peer" => "Two are served at a time, the others get `Busy` and when to come again" {
        crowds::ten_thousand_streams_of_one_peer_take_two_places
        crowds::a_peer_without_a_place_is_told_when_to_come_again
        crowds::a_busy_node_makes_an_honest_sync_fail_with_the_time_to_wait
    }
    [45] "Many connections" => "Closed with `TooManyConnections`: a peer's oldest, or whatever comes above the total" {
        crowds::a_third_connection_of_a_peer_closes_its_first
        crowds::connections_above_the_total_are_closed_and_those_that_stand_are_served
    }
    [46] "Connecting again and again" => "Closed with `TooManyConnections` until the peer slows down" {
        crowds::a_peer_that_connects_again_and_again_is_turned_away_until_it_slows_down
    }
    [47] "Both sides sync with each other at once" => "Both end, and hold the same" {
        ; "tests/tests/it/syncing.rs" two_nodes_that_sync_with_each_other_at_once_both_end_and_hold_the_same
        "tests/tests/it/syncing.rs" syncs_of_one_space_with_one_peer_take_turns
    }
    [48] "A replayed announcement, or a run sent again" => "Dropped after a look-up; a run is charged to who delivered it" {
        ; "tests/tests/it/gossip/hostile.rs" a_counter_that_goes_back_is_ignored
        "tests/tests/it/gossip/hostile.rs" runs_sent_again_and_again_do_not_keep_their_author_from_being_heard
        "crates/gossip/src/gate.rs" runs_that_are_no_news_use_up_the_share_of_who_delivers_them_and_nothing_of_their_author
    }
    [49] "A forged announcement or run" => "Dropped, charged to who delivered it" {
        ; "tests/tests/it/gossip/hostile.rs" a_forged_announcement_is_ignored
        "tests/tests/it/gossip/hostile.rs" a_head_that_its_author_did_not_sign_is_ignored_with_all_that_came_along
        "tests/tests/it/gossip/hostile.rs" a_run_that_its_author_did_not_sign_is_ignored_with_all_that_came_along
        "tests/tests/it/gossip/hostile.rs" bad_runs_among_many_good_ones_of_a_neighbor_are_ignored_and_the_good_ones_are_taken
        "crates/gossip/src/gate.rs" a_forged_announcement_does_not_move_the_counter_of_the_sender_it_names
    }
    [50] "A flood of announcements or runs" => "Dropped beyond the sender's or the author's rate; others are heard" {
        ; "tests/tests/it/gossip/hostile.rs" one_peer_that_floods_does_not_keep_others_from_being_heard
        "crates/gossip/src/gate.rs" forged_floods_use_up_the_share_of_who_delivers_them_and_nobody_elses
        "crates/gossip/src/gate.rs" an_author_that_writes_too_often_leaves_others_heard_even_in_the_same_message
        "crates/gossip/src/gate.rs" any_number_of_authors_behind_one_neighbor_get_no_more_than_it_may_relay
    }
    [51] "An announcement in the name of a victim" => "It does not count without the victim's signature: only who signed is dialled" {
        ; "crates/gossip/src/gate.rs" bad_messages_are_told_apart
        "tests/tests/it/gossip/hostile.rs" a_forged_announcement_is_ignored
    }
    [52] "Clocks that are wrong or go back" => "Timestamps decide nothing; waits use a clock that never goes back" {
        runs::timestamps_decide_nothing
    }
    [53] "A full disk" => "A typed error; reading and serving go on; nothing is acknowledged" {
        ; "tests/tests/it/syncing.rs" a_full_disk_fails_the_sync_acknowledges_nothing_and_leaves_reading_and_serving
        "crates/store/src/disk/tests/crashes.rs" a_full_disk_refuses_appends_and_goes_on_serving
    }
    [54] "A disk that fails to flush" => "A typed error until it works again; nothing is acknowledged" {
        ; "crates/store/src/disk/tests/crashes.rs" a_disk_that_fails_is_an_error_until_it_works_again
    }
    [55] "A kill in mid commit" => "A commit is there as a whole or not at all" {
        ; "crates/store/src/disk/tests/crashes.rs" a_commit_cut_off_at_any_write_is_there_as_a_whole_or_not_at_all
        "crates/store/src/disk/tests/crashes.rs" a_killed_process_loses_nothing_it_acknowledged
    }
    [56] "A power cut while a store is created" => "The file appears only when it is whole" {
        ; "crates/store/src/disk/tests/opening.rs" creation_leaves_the_finished_file_alone_in_its_folder
    }
    [57] "A damaged page" => "Never served: the log is named and stopped, others go on" {
        ; "crates/store/src/disk/tests/damage.rs" a_flipped_byte_anywhere_is_never_served
        "crates/store/src/disk/tests/damage.rs" a_damaged_run_is_named_and_others_are_served
        "crates/cli/tests/it/command_line.rs" a_flipped_bit_on_disk_is_found_and_never_exported
    }
    [58] "Two processes with one store" => "`AlreadyOpen`" {
        ; "crates/store/src/disk/tests/opening.rs" two_stores_never_have_one_file_open
    }
    [59] "An author's own log, restored from an old backup and written to" => "A fork as any other, found by the next peer that holds the rest; nothing more is written to it" {
        ; "tests/tests/it/forks/ways.rs" a_restored_backup_that_was_written_to_is_found_out_and_writes_no_more
        "tests/tests/it/forks/gossip.rs" a_member_that_comes_back_with_a_branch_is_cut_like_the_others
    }
    [60] "One author key on two devices" => "A fork as any other; documented: a key belongs on one device" {
        ; "tests/tests/it/forks/gossip.rs" everybody_on_a_topic_cuts_a_log_that_two_of_them_extend
    }
    [61] "A file of a newer format, or of something else" => "A typed error; the file is left as it is" {
        ; "crates/store/src/disk/tests/opening.rs" another_format_is_refused_and_left_alone
        "crates/store/src/disk/tests/opening.rs" a_foreign_file_is_refused_and_left_alone
    }
    [62] "A handler that panics, or is dropped in the middle" => "One stream ends with `Internal`; what was handed to the disk is stored or not, never half" {
        ; "tests/tests/it/syncing.rs" a_panic_while_serving_ends_that_request_and_not_the_node
        "tests/tests/it/syncing.rs" a_pull_dropped_in_the_middle_goes_on_from_what_was_stored
    }
    [63] "A history that is silently cut short, or wrongly accounted for" => "Stream reset with `DigestMismatch`, or `ProtocolViolation`; what came was signed and stays" {
        answers::a_history_cut_short_is_seen_by_its_digest
        answers::an_account_of_other_figures_is_an_error
    }
    [64] "Bytes after the end of a history" => "Not read: the sync is complete" {
        answers::bytes_after_the_end_of_a_history_are_not_read
    }
    [65] "Breaking rules again and again" => "The third in ten minutes bans for ten: closed with `Banned`, and not pulled from" {
        crowds::a_peer_that_breaks_rules_three_times_is_banned_and_nobody_else_is
        crowds::invalid_answers_count_towards_the_ban_as_well
    }
    [66] "A proof of a fork that proves nothing" => "Connection closed with `InvalidRun`; no log is cut" {
        ; "tests/tests/it/forks/liars.rs" a_bogus_proof_is_the_senders_fault_and_changes_nothing
        "tests/tests/it/forks/liars.rs" a_stranger_who_asks_about_forks_gets_what_an_unknown_space_gets
    }
    [67] "Events of an author nobody granted anything" => "Not stored, in a sync, live and by gossip; the rest is taken" {
        ; "tests/tests/it/access/writers.rs" a_strangers_log_is_refused_in_a_sync_and_the_rest_of_it_is_taken
        "tests/tests/it/access/writers.rs" a_strangers_events_are_refused_live_and_by_gossip
    }
    [68] "An invite that is forged, used, too old, another's, or for an author who did not sign" => "Refused alike" {
        ; "tests/tests/it/access/invites.rs" an_invite_that_is_forged_too_old_or_for_somebody_else_to_take_is_refused_alike
        "tests/tests/it/access/invites.rs" an_invite_serves_once_and_whoever_used_it_is_answered_alike_again
        "tests/tests/it/access/refusals.rs" an_invite_is_refused_for_an_author_who_did_not_sign_for_it_like_a_bad_one
    }
    [69] "Random bytes" => "An error each time, and nothing else" {
        frames::random_bytes_end_a_stream_and_nothing_else;
        "crates/proto/tests/sim/tampering.rs" tampering_fails_a_sync_or_does_nothing_but_never_makes_it_silently_short
    }
    [70] "A receipt that is not the peer's, or for another answer" => "Connection closed with `ProtocolViolation`; the sync fails" {
        answers::a_receipt_that_is_not_the_peers_or_for_another_answer_is_refused
    }
    [71] "A sound run without some of its payloads" => "Connection closed with `InvalidRun`; by gossip ignored and counted" {
        runs::a_run_without_its_payloads_is_refused
        runs::a_revocation_left_out_of_the_owners_run_is_refused;
        "tests/tests/it/gossip/hostile.rs" a_run_without_a_payload_is_ignored
    }
    [72] "Strangers in every place there is" => "They give way, whoever is there for longest first, to whom the policy names and to who synced before: `TooManyConnections`, or `Busy`" {
        strangers::strangers_on_every_connection_give_way_to_a_peer_that_synced_before
        strangers::a_stranger_that_syncs_keeps_its_connection_when_strangers_give_way
        strangers::strangers_in_every_sync_give_way_to_a_peer_that_synced_before
        strangers::strangers_in_every_place_give_way_to_a_member_who_never_came_before;
        "crates/headwater/src/standing.rs" a_crowd_that_syncs_displaces_nobody_who_was_known_before
    }
    [73] "Ever new identities that connect" => "All strangers have one rate: refused before the handshake by the filter, else closed with `TooManyConnections`" {
        strangers::strangers_connect_no_faster_than_they_may_together
        strangers::strangers_are_turned_away_before_a_handshake_and_a_known_address_is_not
    }
    [74] "Clocks of too many authors again and again" => "`Busy` for 2 s, then twice as long each time; no ban" {
        strangers::clocks_of_too_many_authors_are_answered_with_ever_longer_waits;
        "crates/headwater/src/conduct.rs" clocks_too_long_are_waited_for_ever_longer_until_a_sync_ends_in_order
    }
    [75] "Many long clocks at once" => "Chunk by chunk in turn, at one rate for all strangers; beyond that, and beyond 32 at once, reset with `Busy`" {
        strangers::a_long_clock_without_a_place_is_told_busy_and_a_short_one_is_served
        strangers::heads_of_strangers_are_taken_no_faster_than_they_may_state_them_together
    }
    [76] "Evidence of a revocation that shows none, or is somebody else's, or comes without end" => "Connection closed with `InvalidRun` or `ProtocolViolation`; nothing is revoked" {
        ; "crates/proto/tests/sim/forks/owners.rs" junk_sent_as_evidence_is_the_peers_fault_and_revokes_nothing
        "crates/proto/tests/sim/forks/owners.rs" a_forged_signature_under_evidence_is_the_peers_fault
    }
}

const TABLE: &str = "docs/hostile-peers.md";

/// Where libtest's output of a whole run lies, for the one test that writes the table.
const RESULTS: &str = "HEADWATER_HOSTILE_RESULTS";

const FRONT: &str = "\
# Hostile peers

Every rule a peer can break, what a node answers, and what shows it. A name in the third column is a
test; most are a peer that speaks raw frames over real QUIC against a node that holds a space, and
assert four things: the error the node reports or counts, the code the peer is told, that what is
stored is what was stored, and that an honest peer is served meanwhile and afterwards. `Busy`,
`Malformed` and the like are close codes: those that reset a stream leave the connection, the others
close it.

`just hostile` runs all of them and writes this page.

| # | a peer that sends or does | a node answers | shown by | outcome |
| --- | --- | --- | --- | --- |
";

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn link(shown: &Shown) -> String {
    format!("[`{}`](../{})", shown.test, shown.file)
}

/// All of a row but its outcome.
fn cells(row: &Row) -> String {
    let shown: Vec<_> = row.shown.iter().map(link).collect();
    let shown = shown.join("<br>");
    format!(
        "| {} | {} | {} | {shown} |",
        row.number, row.input, row.answer
    )
}

#[test]
fn the_catalogue_counts_on_and_shows_every_rule() {
    for (at, row) in (1..).zip(ROWS) {
        assert_eq!(row.number, at);
        assert!(!row.shown.is_empty(), "row {at} is shown by nothing");
    }
}

#[test]
fn every_test_a_row_names_is_there() {
    for shown in ROWS.iter().flat_map(|row| row.shown) {
        let file = fs::read_to_string(root().join(shown.file)).expect(shown.file);
        let function = format!("fn {}(", shown.test);
        // The sentences of the conformance suite and of the catalogue are named in macros.
        assert!(file.contains(&function), "{} in {}", shown.test, shown.file);
    }
}

#[test]
fn the_written_table_has_the_rows_of_this_one() {
    let written = fs::read_to_string(root().join(TABLE)).expect(TABLE);
    let rows: Vec<_> = written
        .lines()
        .skip_while(|line| !line.starts_with("| ---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(rows.len(), ROWS.len(), "run `just hostile`");
    for (row, written) in ROWS.iter().zip(rows) {
        let cells = cells(row);
        assert!(written.starts_with(&cells), "run `just hostile`: {cells}");
    }
}

#[test]
#[ignore = "writes docs/hostile-peers.md; `just hostile` calls it"]
fn write_the_table() {
    let results = env::var(RESULTS).expect(RESULTS);
    let results = fs::read_to_string(results).expect("readable");
    // A test's last name is enough: they are sentences.
    let outcomes: HashMap<_, _> = results
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "))
        .map(|(path, outcome)| (path.rsplit("::").next().unwrap_or(path), outcome))
        .collect();
    let mut page = String::from(FRONT);
    let (mut passed, mut all) = (0, 0);
    for row in ROWS {
        let outcome = row
            .shown
            .iter()
            .map(|shown| match outcomes.get(shown.test) {
                Some(&"ok") => "passed",
                Some(_) => "**failed**",
                None => "not run",
            });
        let outcome: Vec<_> = outcome.collect();
        passed += outcome.iter().filter(|one| **one == "passed").count();
        all += outcome.len();
        writeln!(page, "{} {} |", cells(row), outcome.join("<br>")).expect("in memory");
    }
    writeln!(page, "\n{} rules, {passed} of {all} passed.", ROWS.len()).expect("in memory");
    fs::write(root().join(TABLE), page).expect(TABLE);
    assert_eq!(passed, all);
}
