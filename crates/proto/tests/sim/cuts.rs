//! A stream that breaks at any point loses nothing that was applied, and the next sync completes.

use headwater_wire::SyncOutcome;

use crate::{
    logs::{Logs, author},
    rng::{Rng, for_seeds},
    simulator::{Ending, Options, Simulator, pull},
};

#[test]
fn after_a_cut_at_any_step_the_next_sync_completes_with_no_event_lost_or_twice() {
    for_seeds(25, |seed| {
        let mut rng = Rng::new(seed);
        let mut theirs = Logs::create(2);
        for n in 1..=rng.between(1, 6) {
            let events = rng.between(1, 15);
            theirs.write(&author(n), events, &mut rng);
        }
        let mut whole = theirs.nothing_of();
        let options = Options::drawn(&mut rng);
        let steps = pull(&mut whole, &mut theirs, &mut rng, options).steps;
        let mut at = 0;
        while at <= steps + 5 {
            let mut ours = theirs.nothing_of();
            let mut options = Options::drawn(&mut rng);
            options.cut_at = Some(at);
            if let Ending::Failed(failure) =
                Simulator::new(&mut ours, &mut theirs, options).run(&mut rng)
            {
                panic!("cut at {at}: {failure:?}");
            }
            let kept = ours.events().len();
            let options = Options::drawn(&mut rng);
            let report = pull(&mut ours, &mut theirs, &mut rng, options);
            assert_eq!(report.end.outcome, SyncOutcome::Complete);
            assert_eq!(ours.events(), theirs.events());
            assert_eq!(
                kept as u64 + report.end.events,
                theirs.events().len() as u64
            );
            at += rng.between(1, 4);
        }
    });
}
