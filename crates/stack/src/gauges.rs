//! What a stack counts.

/// Numbers since the stack was made, and of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackGauges {
    /// Frames that came.
    pub frames: u64,
    /// Those that weren't whole TCP segments or datagrams over IP, or whose checksums were wrong: they are dropped.
    pub malformed: u64,
    /// Segments and datagrams for addresses that aren't the stack's, or from where no host is, and datagrams for ports that nobody has
    /// bound: dropped.
    pub strangers: u64,
    /// Connections begun at a listener: SYNs taken.
    pub syns: u64,
    /// Segments of a connection whose numbers can't be its next: a peer's keepalive, what comes again though it had come, strangers'
    /// guesses.
    pub misfits: u64,
    /// Segments dropped because their listener's queue was full. Peers send them again.
    pub backlog_full: u64,
    /// SYNs dropped because there were as many connections as may be.
    pub flows_full: u64,
    /// Half-open connections forgotten for newer ones.
    pub half_open_evicted: u64,
    /// Connections in TIME-WAIT forgotten for newer ones.
    pub waits_dropped: u64,
    /// Resets sent for segments of no connection.
    pub resets: u64,
    /// Answers dropped because the link had no room. Peers ask for them again.
    pub answers_lost: u64,
    /// Datagrams dropped because their socket's queue was full.
    pub datagrams_full: u64,
    /// Connections now, half-open ones among them.
    pub flows: usize,
    /// Those of them that have been silent for a while, and take no socket until something happens.
    pub resting: usize,
    /// Half-open connections now.
    pub half_open: usize,
    /// Connections in TIME-WAIT now.
    pub waits: usize,
}
