//! A table of programs, each measured in several ways in turn: what the first way does, and the others' ratios to it in the same round.

use anyhow::Result;

use crate::programs::{Measured, Program};
use crate::{Options, Row, median};

/// Measures those of `programs` that are wanted, in the ways of these names, and prints the table. `measure` gets a way's place and a program.
pub(crate) fn run<const WAYS: usize>(
    options: &Options,
    (names, programs): ([&str; WAYS], &[Program]),
    wanted: impl Fn(&Row) -> bool,
    mut measure: impl FnMut(usize, Program) -> Result<Measured>,
) -> Result<()> {
    println!("| | {} |", names.join(" | "));
    println!("|{}", " --- |".repeat(WAYS + 1));
    for &program in programs.iter().filter(|program| wanted(&Row::Program(**program))) {
        if let Some(lacking) = program.lacks() {
            eprintln!("{}: skipped, {lacking} isn't installed", program.name());
            continue;
        }
        let mut rounds: Vec<[Measured; WAYS]> = vec![];
        for round in 1..=options.rounds {
            eprintln!("{}: round {round} of {}", program.name(), options.rounds);
            let mut all = [Measured { rate: 0.0, cpu_us: 0.0 }; WAYS];
            for (way, place) in all.iter_mut().enumerate() {
                *place = measure(way, program)?;
            }
            rounds.push(all);
        }
        println!("| {} | {} |", program.name(), cells(&rounds).join(" | "));
    }
    Ok(())
}

/// What is said of each way.
fn cells<const WAYS: usize>(rounds: &[[Measured; WAYS]]) -> [String; WAYS] {
    let middle = |figure: &dyn Fn(&[Measured; WAYS]) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
    std::array::from_fn(|way| match way {
        0 => format!("{:.0} a second, {:.2} µs of CPU", middle(&|all| all[0].rate), middle(&|all| all[0].cpu_us)),
        _ => format!(
            "{:.3} ×, CPU {:.3} ×",
            middle(&|all| all[way].rate / all[0].rate),
            middle(&|all| all[way].cpu_us / all[0].cpu_us)
        ),
    })
}
