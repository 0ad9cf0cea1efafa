//! What every [`LogStore`] must do, as tests anybody can run against a store.
//!
//! Each sentence is a function that takes an empty store and panics if the store does not do what
//! the sentence says. [`conformance_tests!`](crate::conformance_tests) makes one `#[test]` of
//! each:
//!
//! ```
//! use headwater_store::{LogStore, MemoryStore};
//!
//! fn on_my_store(check: fn(&dyn LogStore)) {
//!     check(&MemoryStore::new());
//! }
//!
//! headwater_store::conformance_tests!(on_my_store);
//! # fn main() {}
//! ```

// These are tests: a panic is how they speak.
#![allow(clippy::missing_panics_doc)]

mod appends;
mod bounds;
mod exchange;
mod forks;
mod model;
mod quotas;
mod reads;
mod revoked;
mod small_runs;
mod world;

pub use self::{
    appends::*,
    bounds::*,
    exchange::{
        Delivery, ForkPlan, check_exchange, stores_that_exchanged_proofs_and_branches_agree,
    },
    forks::*,
    model::{Step, check_history, random_histories_agree_with_a_model},
    quotas::*,
    reads::*,
    revoked::*,
    small_runs::*,
    world::{Log, World},
};

use crate::LogStore;

/// Makes a `#[test]` of each sentence of the [conformance suite](crate::conformance).
///
/// Takes the name of a function `fn(Sentence)` that makes an empty store and hands it
/// on.
#[macro_export]
macro_rules! conformance_tests {
    ($with_store:ident) => {
        $crate::conformance_tests!(@tests $with_store);
    };
    (@tests $with_store:ident $($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                $with_store($crate::conformance::$name);
            }
        )+
    };
    (@list $($name:ident)+) => {
        &[$((stringify!($name), $name),)+]
    };
    // The one list of sentences.
    (@$what:ident $($with_store:ident)?) => {
        $crate::conformance_tests! {
            @$what $($with_store)?
            a_space_begins_with_its_genesis
            refuses_a_run_of_a_space_whose_genesis_is_not_held
            takes_a_genesis_and_other_logs_in_one_call
            refuses_a_gap_and_leaves_the_log_unchanged
            answers_stale_to_a_run_it_holds_and_stays_unchanged
            cuts_off_an_equal_overlap
            cuts_off_an_overlap_that_ends_inside_a_stored_run
            runs_of_one_call_build_on_each_other
            one_call_spans_spaces_and_authors
            a_refused_run_does_not_hinder_the_others_of_its_call
            an_empty_append_changes_nothing
            takes_many_runs_in_one_call
            takes_many_authors_in_one_call
            stubs_are_kept_as_stubs
            takes_the_largest_payload
            stores_and_cuts_the_largest_run
            threads_append_and_read_at_once
            knows_nothing_of_a_space_it_does_not_hold
            lists_spaces_ascending
            heads_come_in_ascending_pages
            compares_stated_heads_with_the_logs_it_holds
            returns_runs_as_they_came
            cuts_only_the_first_run_of_a_range
            returns_a_whole_run_where_a_range_ends_inside_it
            returns_as_many_runs_as_fit_but_at_least_one
            returns_runs_in_the_order_of_the_ranges
            returns_every_event_by_its_seq
            verifies_what_it_holds
            settling_changes_nothing
            keeps_its_id
            random_histories_agree_with_a_model
            merges_runs_appended_one_by_one
            a_merged_log_serves_every_tail
            merging_rewrites_no_event_more_than_three_times
            a_fork_cuts_the_log_below_it_and_what_lies_above_is_kept
            a_fork_is_found_wherever_it_shows
            a_fork_at_the_first_event_leaves_an_entry_without_a_head
            a_run_of_a_log_that_is_cut_is_stale_or_forked
            a_lower_fork_cuts_again_and_a_higher_one_changes_nothing
            a_fork_does_not_hinder_the_other_runs_of_its_call
            a_proof_from_elsewhere_cuts_the_log
            a_proof_of_a_space_that_is_not_held_is_not_kept
            a_log_cut_above_its_end_goes_on_up_to_the_cut
            a_proof_that_goes_on_from_another_event_proves_a_lower_fork
            a_run_that_does_not_lead_to_the_proof_proves_a_lower_fork
            serves_the_run_a_cut_lies_in_whole
            a_cut_anywhere_in_a_log_of_small_runs_leaves_what_is_below_it
            forks_come_in_ascending_pages
            a_check_lists_the_forks_and_counts_what_is_visible
            a_bound_hides_what_lies_above_it_and_lifting_it_shows_it_again
            a_run_above_a_bound_is_refused_and_one_that_spans_it_is_stored_whole
            a_bound_of_nothing_takes_the_entry_away
            a_bound_is_kept_for_an_author_nothing_is_held_of
            a_bound_of_a_space_that_is_not_held_is_not_kept
            a_fork_and_a_bound_cut_at_the_lower_of_the_two
            a_fork_above_a_bound_is_found_where_it_is_stored
            a_forked_log_nothing_is_accepted_of_is_hidden_until_the_bound_is_lifted
            bounds_come_in_ascending_pages
            small_runs_are_merged_across_a_bound
            bounds_lag_behind_the_owner_until_somebody_says_they_are_kept
            a_revocation_above_the_cut_of_the_owners_log_holds
            a_revocation_in_another_branch_is_taken_in_and_told_of
            a_branch_that_is_refused_leaves_what_it_revokes
            a_run_refused_above_a_known_cut_leaves_what_it_revokes
            the_lowest_last_event_of_a_writer_counts
            what_takes_nothing_that_shows_is_not_kept
            a_lower_cut_holds_what_was_revoked_above_it
            what_anyone_may_do_is_taken_like_what_was_granted_by_name
            branches_add_up_to_the_same_in_every_order
            stores_that_exchanged_proofs_and_branches_agree
            counts_the_bytes_it_stores_shown_or_not
            a_run_above_its_authors_quota_is_refused_and_others_go_on
            runs_of_one_call_count_towards_a_quota_together
            a_space_quota_binds_everybody_but_the_owner
            a_fork_is_found_above_the_quota
        }
    };
}

/// A check of an empty store; it panics if the store does not do what the sentence says.
pub type Sentence = fn(&dyn LogStore);

/// Every sentence by name.
pub const ALL: &[(&str, Sentence)] = crate::conformance_tests!(@list);

/// Runs every sentence, each on an empty store of its own.
pub fn run_all(with_store: impl Fn(Sentence)) {
    for (_, sentence) in ALL {
        with_store(*sentence);
    }
}
