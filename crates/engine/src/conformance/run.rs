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
            listening: [
                a_closed_listener_turns_all_away,
                those_who_wait_are_taken_before_it_is_closed,
                closed_within_an_accept,
                an_address_is_listened_on_once,
                several_listeners_are_told_apart,
                without_descriptors_a_listener_rests,
                a_resting_listener_is_closed,
            ];
            dialling: [
                a_dial_that_stands_is_told_before_its_bytes,
                a_dial_that_stands_is_not_read_by_itself,
                a_dial_is_refused,
                a_dial_leads_nowhere,
                a_dial_is_denied,
                a_dial_to_a_full_listener_is_told_to_come_again,
                a_dial_that_is_never_answered_ends_by_its_timer,
                a_dial_may_be_given_up_at_once,
                a_dial_that_stood_and_was_reset_is_told_as_such,
                a_full_core_dials_nobody,
                a_dial_from_anothers_address,
                many_dials_at_once,
            ];
            receiving: [
                what_is_left_over_stands_in_front_of_what_comes_next,
                what_is_left_over_is_offered_again_when_asked_for,
                a_program_that_uses_nothing_holds_its_peer_back,
                a_paused_connection_holds_its_peer_back,
                any_pieces_arrive_in_order,
                any_part_may_be_used,
            ];
            messages: [
                whole_messages_whatever_the_pieces,
                a_pause_after_each_message,
                a_message_that_is_too_long,
                what_is_no_message,
                an_end_in_the_midst_of_a_message,
                a_reset_in_the_midst_of_a_message,
                ended_within_a_message,
                from_messages_to_bytes,
                from_messages_to_a_forward,
                beginnings_of_strangers_leave_blocks_to_the_dialled,
                many_conversations_in_messages,
            ];
            sending: [
                a_short_send_is_followed_by_word_of_room,
                a_slow_peer_gets_all_bytes,
                much_both_ways_at_once,
                an_empty_send_is_nothing,
                what_is_sent_ahead_arrives,
                what_is_pushed_arrives_before_a_reset,
                what_a_peer_has_not_taken_is_known,
                parts_are_sent_as_one,
            ];
            ending: [
                sending_goes_on_after_the_peers_end,
                receiving_goes_on_after_the_programs_end,
                both_end_at_once,
                an_end_without_bytes,
                an_end_behind_more_than_a_turn,
                what_was_sent_before_a_close_arrives,
                what_was_sent_in_the_turn_that_stops_arrives,
                a_reset_is_seen_by_the_peer,
                a_close_with_unread_bytes_is_a_reset,
                an_end_from_within_every_upcall,
                sending_to_a_peer_that_has_left_fails,
            ];
            failing: [
                reset_while_nothing_moves,
                reset_while_nobody_reads,
                bytes_before_a_reset_are_offered_before_it,
                reset_with_bytes_left_over,
                reset_while_paused,
                reset_while_the_program_awaits_room,
                reset_after_our_end,
                reset_after_its_end,
                reset_with_a_timer_set,
                many_resets_at_once,
                a_failed_connection_is_ended_before_it_is_told,
                a_failed_connection_is_ended_while_it_is_told,
            ];
            silence: [
                an_accepted_peer_stops_answering,
                a_dialled_peer_stops_answering,
                keepalive_finds_who_has_gone,
                a_dial_that_is_never_answered_times_out,
            ];
            forwarding: [
                a_conversation_is_passed_on,
                much_is_passed_on_both_ways,
                a_slow_sink_holds_the_source_back,
                what_is_left_over_is_forwarded,
                a_failing_sink_leaves_the_source_to_the_program,
                a_failing_source_is_handed_on_to_its_last_byte,
                a_source_fails_while_its_bytes_wait,
                both_legs_fail_at_once,
                a_leg_is_ended_while_it_is_forwarded,
                forwarded_to_another_in_the_middle,
                a_second_source_takes_the_firsts_place,
                the_program_sends_nothing_in_between,
                what_is_sent_ahead_stands_in_front,
                many_pairs_share_few_pipes_and_blocks,
                bulk_starves_nobody,
            ];
            timers: [
                a_timer_runs_out_once_and_not_early,
                a_timer_without_a_wait_runs_out,
                a_timer_is_replaced,
                a_timer_is_cleared,
                a_timer_is_gone_with_its_connection,
                a_timer_is_set_again_when_it_runs_out,
                timers_run_out_in_order,
                an_alarm_runs_out_once_and_not_early,
            ];
            wakes: [
                a_wake_before_the_core_sleeps,
                no_wake_is_lost,
                wakes_at_once_may_be_told_as_one,
                a_wake_from_within_an_upcall_comes_after_it,
                a_wake_comes_through_traffic,
            ];
            polling: [
                a_busy_core_serves_as_another,
                a_busy_core_looks_up,
            ];
            travelling: [
                a_connection_goes_on_on_another_core,
                room_is_told_of_on_the_other_core,
                a_failure_is_told_on_the_other_core,
                one_that_cannot_go_comes_back,
                one_that_finds_no_room_is_lost,
                what_cannot_be_handed_over,
            ];
            panicking: [
                a_panic_over_a_connection_costs_that_one,
                a_panic_over_a_dial_costs_that_one,
                a_panic_over_an_error_is_the_last_word,
                a_panic_over_a_forwarded_leg_leaves_the_other,
            ];
            crowds: [
                a_crowd_comes_and_goes,
            ];
            binding: [
                any_port_is_filled_in_and_a_given_one_kept,
                an_address_is_bound_once,
                nothing_is_told_of_a_socket_that_was_let_go,
                let_go_within_an_upcall,
                let_go_within_anothers_upcall,
                bound_within_an_upcall,
                answers_leave_from_the_address_that_was_asked,
                a_socket_at_one_address_hears_no_other,
            ];
            datagrams: [
                a_datagram_is_told_with_its_flow,
                the_longest_that_goes_through_comes_back,
                one_that_is_too_long_is_refused_or_counted,
                one_that_came_too_long_is_counted,
                no_part_of_one_is_told,
                what_cannot_be_sent_is_counted,
                an_unreachable_peer_costs_no_other,
                a_socket_whose_one_peer_is_gone_is_told,
                two_sockets_are_told_apart,
                what_is_sent_goes_out_by_itself,
                a_core_with_sockets_sleeps,
            ];
            bursts: [
                a_burst_arrives_in_order,
                what_a_full_queue_loses_is_counted,
                pieces_show_as_datagrams,
                more_than_an_outbox_holds_goes_out,
                a_full_socket_is_followed_by_word_of_room,
                a_flood_leaves_connections_their_turn,
                bulk_leaves_datagrams_their_turn,
                a_panic_over_a_datagram_costs_that_one,
                timers_and_wakes_come_through_datagrams,
                a_busy_core_hears_datagrams,
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
