//! What a run asks of gateways' windows, beside its step: by what they are opened, and whether they close.

use std::fmt;

/// By what gateways open windows; their configuration's `gateway.window_by`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowsBy {
    /// The first that can be had.
    #[default]
    Auto,
    /// The program in the kernel.
    Ebpf,
    /// Routes.
    Route,
    /// Padding.
    Traffic,
}

impl WindowsBy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Ebpf, Self::Route, Self::Traffic];

    /// Its name, on the command line and in the gateways' files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::Route => "route",
            Self::Traffic => "traffic",
        }
    }
}

impl fmt::Display for WindowsBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a run asks of gateways' windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// By what they are opened.
    pub by: WindowsBy,
    /// Whether they close while a connection is idle, as they do by default (`net.ipv4.tcp_slow_start_after_idle`).
    pub close: bool,
    /// The congestion control of the gateways' legs, if it isn't the lab's.
    pub congestion: Option<String>,
}
