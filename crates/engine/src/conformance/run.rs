//! How a case is run on worlds, and the list of all cases.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::world::{Skip, Verdict, World};

/// Runs `case` on each of `worlds`. Skips are printed, once for each reason.
///
/// # Panics
/// When the case fails, after saying where.
pub fn run<W: World>(name: &str, worlds: impl IntoIterator<Item = Result<W, Skip>>, case: impl Fn(&mut W) -> Verdict) {
    let mut told: Vec<Skip> = Vec::new();
    for world in worlds {
        let verdict = world.and_then(|mut world| {
            catch_unwind(AssertUnwindSafe(|| case(&mut world))).unwrap_or_else(|panic| {
                eprintln!("{name} fails on the {}", world.name());
                resume_unwind(panic)
            })
        });
        if let Err(skip) = verdict
            && !told.contains(&skip)
        {
            println!("SKIP: conformance: {name}: {skip}");
            told.push(skip);
        }
    }
}

/// Makes a test of each case, in a module for each subject, on the worlds that an expression gives: `conformance_tests!(worlds())`, where
/// `worlds()` is something to iterate over `Result<impl World, Skip>`.
#[macro_export]
macro_rules! conformance_tests {
    ($worlds:expr) => {
        $crate::conformance_tests! { @ $worlds;
            accepting: [
                an_echo_ended_by_the_peer,
                an_echo_ended_by_the_program,
                nothing_is_told_before_it_is_asked_for,
                all_came_before_it_was_accepted,
                more_than_a_batch_and_more_than_there_is_room_for,
                a_refused_one_sees_a_reset,
                a_dropped_one_sees_a_reset,
                who_connects_is_told,
                reset_before_it_was_accepted,
                a_stale_handle_is_inert,
            ];
            receiving: [
                what_is_left_over_stands_in_front_of_what_comes_next,
                what_is_left_over_is_offered_again_when_asked_for,
                a_program_that_uses_nothing_holds_its_peer_back,
                a_paused_connection_holds_its_peer_back,
                any_pieces_arrive_in_order,
                any_part_may_be_used,
            ];
        }
    };
    (@ $worlds:expr; $($subject:ident: [$($case:ident,)+];)+) => {
        $(mod $subject {
            #[expect(unused_imports, reason = "names of the expression that gives the worlds")]
            use super::*;

            $(#[test]
            fn $case() {
                let name = concat!(stringify!($subject), "::", stringify!($case));
                $crate::conformance::run(name, $worlds, $crate::conformance::$subject::$case);
            })+
        })+
    };
}
