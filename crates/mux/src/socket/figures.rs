//! What is counted: the figures of /proc/net/kcm and kcm_stats, by their meaning.

use midmile_engine::Counter;

use super::Ended;

macro_rules! figures {
    ($($(#[$meta:meta])* $name:ident,)+) => {
        /// What a multiplexor has counted since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Figures { $($(#[$meta])* pub $name: u64,)+ }

        /// The same, as it's counted: by the loop's thread alone.
        #[derive(Debug, Default)]
        pub(super) struct Counters { $(pub(super) $name: Counter,)+ }

        impl Counters {
            pub(super) fn figures(&self) -> Figures {
                Figures { $($name: self.$name.value(),)+ }
            }
        }
    };
}

figures! {
    /// Whole messages received.
    rx_messages,
    /// Bytes of them.
    rx_bytes,
    /// Messages that the kernel has taken whole.
    tx_messages,
    /// Bytes of them.
    tx_bytes,
    /// Messages that were sent again, by another connection.
    tx_retries,
    /// Messages that couldn't be sent.
    tx_failed,
    /// Connections attached so far.
    attached,
    /// Connections given back.
    detached,
    /// Times that receivers were full, and no connection was read.
    rx_full,
    /// Connections that ended between two messages.
    rx_finished,
    /// Connections that ended within a message.
    rx_torn,
    /// Connections that failed.
    rx_failed,
    /// Connections ended because of a message that was too long.
    rx_too_long,
    /// Connections ended because what came was no message.
    rx_broken,
    /// Connections ended because a message wasn't whole in time.
    rx_timed_out,
    /// Connections ended because their peer didn't take a message in time.
    tx_untaken,
}

impl Counters {
    pub(super) fn of(&self, why: Ended) -> &Counter {
        match why {
            Ended::Finished => &self.rx_finished,
            Ended::Torn => &self.rx_torn,
            Ended::Failed => &self.rx_failed,
            Ended::TooLong => &self.rx_too_long,
            Ended::Broken => &self.rx_broken,
            Ended::TimedOut => &self.rx_timed_out,
            Ended::Untaken => &self.tx_untaken,
        }
    }
}
