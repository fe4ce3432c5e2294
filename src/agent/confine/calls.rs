//! System calls that neither an agent nor the programs it runs have a use for, refused with `EPERM` (seccomp(2)).
//!
//! # Why a list of what is refused
//! `nft`, `iptables` and the loader of programs come from the host, in versions that nobody here has seen. A list of
//! what is allowed would break on the next of them.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::libc as sys;
use nix::sched::{CloneFlags, unshare};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Kernel code and its memory, mounts and roots, other processes, namespaces, clocks, swap, keys; and what has a history
/// of holes and no use here.
const REFUSED: &[sys::c_long] = &[
    sys::SYS_init_module,
    sys::SYS_finit_module,
    sys::SYS_delete_module,
    sys::SYS_kexec_load,
    sys::SYS_bpf,
    sys::SYS_perf_event_open,
    sys::SYS_syslog,
    sys::SYS_mount,
    sys::SYS_umount2,
    sys::SYS_pivot_root,
    sys::SYS_chroot,
    sys::SYS_move_mount,
    sys::SYS_open_tree,
    sys::SYS_fsopen,
    sys::SYS_fsconfig,
    sys::SYS_fsmount,
    sys::SYS_fspick,
    sys::SYS_mount_setattr,
    sys::SYS_quotactl,
    sys::SYS_acct,
    sys::SYS_ptrace,
    sys::SYS_process_vm_readv,
    sys::SYS_process_vm_writev,
    sys::SYS_process_madvise,
    sys::SYS_kcmp,
    sys::SYS_pidfd_getfd,
    sys::SYS_setns,
    sys::SYS_unshare,
    sys::SYS_reboot,
    sys::SYS_settimeofday,
    sys::SYS_clock_settime,
    sys::SYS_clock_adjtime,
    sys::SYS_adjtimex,
    sys::SYS_sethostname,
    sys::SYS_setdomainname,
    sys::SYS_swapon,
    sys::SYS_swapoff,
    sys::SYS_add_key,
    sys::SYS_request_key,
    sys::SYS_keyctl,
    sys::SYS_name_to_handle_at,
    sys::SYS_open_by_handle_at,
    sys::SYS_fanotify_init,
    sys::SYS_userfaultfd,
    sys::SYS_io_uring_setup,
    sys::SYS_io_uring_enter,
    sys::SYS_io_uring_register,
    sys::SYS_vhangup,
    sys::SYS_personality,
];

/// Those that only this architecture has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[sys::c_long] =
    &[sys::SYS_kexec_file_load, sys::SYS_iopl, sys::SYS_ioperm, sys::SYS_modify_ldt, sys::SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[sys::c_long] = &[];

/// On x86-64 each call has a second number, for programs with pointers of 32 bits (`__X32_SYSCALL_BIT`).
#[cfg(target_arch = "x86_64")]
const NUMBERS: &[sys::c_long] = &[0, 0x4000_0000];
#[cfg(not(target_arch = "x86_64"))]
const NUMBERS: &[sys::c_long] = &[0];

/// Refuses them from here on, in this thread and all it starts. Does nothing where that was done already: each filter
/// costs every later call a little, and a process may have hundreds of predecessors.
pub(super) fn refuse() -> Result<(), String> {
    // To unshare nothing needs no privilege, so only a filter refuses it.
    if unshare(CloneFlags::empty()) == Err(Errno::EPERM) {
        return Ok(());
    }
    let programs = programs().map_err(|error| error.to_string())?;
    programs.iter().try_for_each(|program| apply_filter(program)).map_err(|error| error.to_string())
}

fn programs() -> Result<[BpfProgram; 2], BackendError> {
    // Its arguments cannot be looked at: told that there is no such call, libraries fall back to clone.
    let clone3 = BTreeMap::from([(sys::SYS_clone3, Vec::new())]);
    let mut refused: BTreeMap<sys::c_long, Vec<SeccompRule>> =
        REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    refused.insert(sys::SYS_clone, namespaces()?);
    Ok([program(refused, Errno::EPERM)?, program(clone3, Errno::ENOSYS)?])
}

/// Threads and programs are started by clone as well; what is refused is a namespace of one's own.
fn namespaces() -> Result<Vec<SeccompRule>, BackendError> {
    let flags = [
        CloneFlags::CLONE_NEWUSER,
        CloneFlags::CLONE_NEWNS,
        CloneFlags::CLONE_NEWPID,
        CloneFlags::CLONE_NEWNET,
        CloneFlags::CLONE_NEWIPC,
        CloneFlags::CLONE_NEWUTS,
        CloneFlags::CLONE_NEWCGROUP,
    ];
    let rule = |flag: CloneFlags| {
        let bit = u64::from(flag.bits().unsigned_abs());
        let set = SeccompCmpOp::MaskedEq(bit);
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, set, bit)?])
    };
    flags.into_iter().map(rule).collect()
}

fn program(
    calls: BTreeMap<sys::c_long, Vec<SeccompRule>>,
    answer: Errno,
) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let of_all_numbers = |(call, rules): (sys::c_long, Vec<SeccompRule>)| {
        NUMBERS.iter().map(move |bit| (call | bit, rules.clone())).collect::<Vec<_>>()
    };
    let calls: BTreeMap<i64, _> = calls.into_iter().flat_map(of_all_numbers).collect();
    let answer = SeccompAction::Errno(u32::try_from(answer as i32).unwrap_or_default());
    SeccompFilter::new(calls, SeccompAction::Allow, answer, arch)?.try_into()
}
