//! The signals that are answered.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// All of them.
pub(crate) struct Signals {
    /// Those that end the process.
    pub(crate) end: EndSignals,
    /// The one that has the configuration read anew.
    pub(crate) hangup: Signal,
}

/// Those that end the process.
pub(crate) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Answers them from now on.
    ///
    /// # Errors
    /// The system has none of them for us.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::Run(format!("can't listen for signals: {error}")));
        let end = EndSignals { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? };
        Ok(Self { end, hangup: on(SignalKind::hangup())? })
    }
}

impl EndSignals {
    /// Waits for any.
    pub(crate) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}
