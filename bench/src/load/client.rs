//! A client: the loop around what each kind of load does.

use anyhow::Result;

use super::control::{self, Order};
use super::poller::{ORDERS, Poller};
use super::tally::Tally;

/// What a kind of load does.
pub(super) trait Client {
    /// What it waits with.
    fn poller(&self) -> &Poller;

    /// What it counts with.
    fn tally(&mut self) -> &mut Tally;

    /// Before each wait.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Something happened to what it waits for under this token.
    fn handle(&mut self, token: u64) -> Result<()>;
}

/// Runs until the bench is done.
pub(super) fn run(client: &mut impl Client) -> Result<()> {
    let mut events = Poller::events();
    loop {
        client.prepare()?;
        client.poller().wait(&mut events, None)?;
        for event in &events {
            match event.data.u64() {
                ORDERS if control::take()? == Order::Quit => return Ok(()),
                ORDERS => client.tally().report()?,
                token => client.handle(token)?,
            }
        }
    }
}
