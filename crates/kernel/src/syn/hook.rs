//! Where in the kernel the program sits: a device's tc ingress, by one of two ways.

use aya::programs::tc::{self, NlOptions, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use rustix::io::Errno;

use crate::unavailable::code_of;

/// How the program is attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A TCX link, behind the programs that are there already (Linux 6.6). The kernel removes it with the process.
    Tcx,
    /// A filter of the `clsact` queueing discipline. It is removed when the watch is dropped; a process that is killed leaves it
    /// behind. The discipline stays, since others may have put filters there meanwhile.
    Clsact,
}

/// Attaches by the hook that is wanted; without one, by the better that this kernel has.
pub(super) fn attach(program: &mut SchedClassifier, device: &str, wanted: Option<Hook>) -> Result<Hook, ProgramError> {
    if wanted != Some(Hook::Clsact) {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        match program.attach_with_options(device, TcAttachType::Ingress, options) {
            Ok(_) => return Ok(Hook::Tcx),
            Err(error) if wanted.is_none() && is_unknown(&error) => {}
            Err(error) => return Err(error),
        }
    }
    match tc::qdisc_add_clsact(device) {
        Err(error) if code_of(&error) != Some(Errno::EXIST) => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let options = TcAttachOptions::Netlink(NlOptions::default());
    program.attach_with_options(device, TcAttachType::Ingress, options)?;
    Ok(Hook::Clsact)
}

/// What kernels before 6.6 answer, which don't know links of that kind.
pub(super) fn is_unknown(error: &ProgramError) -> bool {
    matches!(code_of(error), Some(Errno::INVAL | Errno::TOOBIG | Errno::OPNOTSUPP))
}
