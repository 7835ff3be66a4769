//! Every fault, provoked.

use lehr_ptx_sim::{Arg, Device, FaultKind, Grid, Module, Options};

use crate::common::{HEADER, assert_fault, fault_of, kernel, module, run_words, try_words};

/// Puts the address of a thread's word in shared memory, and of its word in `%out`, into registers.
const ADDRESS: &str = "shl.b32 %r1, %id, 2; mov.u32 %r2, s; add.u32 %r2, %r2, %r1;
    cvt.u64.u32 %rd1, %r1; add.s64 %rd2, %in, %rd1; add.s64 %rd3, %out, %rd1;";
const SHARED: &str = ".shared .align 16 .b8 s[256];";

#[test]
fn out_of_bounds() {
    let fault = fault_of("", "ld.global.b32 %r1, [%in+256];", 1);
    assert_fault(&fault, FaultKind::OutOfBounds, "ld.global.b32 %r1");
    assert!(fault.message.contains("byte 256 of in (256 bytes)"), "{fault}");
    assert_fault(&fault_of("", "ld.global.b32 %r1, [%in+-4];", 1), FaultKind::OutOfBounds, "ld.global");
    assert_fault(&fault_of("", "st.global.v4.b32 [%out+256], {0, 1, 2, 3};", 1), FaultKind::OutOfBounds, "st.global");
    assert_fault(&fault_of("", "mov.u64 %rd1, 0; ld.global.b32 %r1, [%rd1];", 1), FaultKind::OutOfBounds, "ld.global");
    assert_fault(&fault_of(SHARED, "st.shared.b32 [s+256], 1;", 1), FaultKind::OutOfBounds, "st.shared");
    let two = ".shared .b32 s;\n.shared .b32 t;";
    let fault = fault_of(two, "st.shared.b32 [t], 1; ld.shared.b32 %r1, [s+4];", 1);
    assert_fault(&fault, FaultKind::OutOfBounds, "ld.shared");
    assert!(fault.message.contains("byte 4 of s"), "{fault}");
    let local = ".local .align 4 .b8 l[8];";
    assert_fault(&fault_of(local, "st.local.b32 [l+8], 1;", 1), FaultKind::OutOfBounds, "st.local");
    assert_fault(&fault_of("", "ld.param.b32 %r1, [out+8];", 1), FaultKind::OutOfBounds, "ld.param");
    assert_fault(&fault_of("", "red.global.add.u32 [%out+256], 1;", 1), FaultKind::OutOfBounds, "red.global");
    // Thread 63 is the first of its warp to be beyond the end.
    let fault = fault_of("", "mad.wide.u32 %rd1, %id, 8, %in; ld.global.b64 %rd2, [%rd1];", 64);
    assert_eq!(fault.place.expect("a place").thread, [32, 0, 0]);
}

#[test]
fn freed_memory() {
    let module = module(&kernel("", "ld.global.b32 %r1, [%in];"));
    let mut device = Device::new();
    let (a, b) = (device.put_f32(&[1.0]).unwrap(), device.alloc(4).unwrap());
    let args = [Arg::U64(a), Arg::U64(b)];
    device.launch(&module, "k", Grid::linear(1, 1), &args).unwrap();
    device.free(a).unwrap();
    let fault = device.launch(&module, "k", Grid::linear(1, 1), &args).unwrap_err();
    assert_fault(&fault, FaultKind::OutOfBounds, "ld.global");
    assert_eq!(device.free(a).unwrap_err().kind, FaultKind::Launch);
}

#[test]
fn misaligned() {
    assert_fault(&fault_of("", "ld.global.b32 %r1, [%in+2];", 1), FaultKind::Misaligned, "ld.global");
    let fault = fault_of("", "ld.global.v4.f32 {%f0, %f1, %f2, %f3}, [%in+8];", 1);
    assert_fault(&fault, FaultKind::Misaligned, "v4");
    assert!(fault.message.contains("not a multiple of 16"), "{fault}");
    assert_fault(&fault_of(SHARED, "st.shared.b64 [s+4], 1;", 1), FaultKind::Misaligned, "st.shared");
    let copy = "mov.u32 %r1, s; cp.async.cg.shared.global [%r1], [%in+8], 16;";
    assert_fault(&fault_of(SHARED, copy, 1), FaultKind::Misaligned, "cp.async");
}

#[test]
fn uninitialised() {
    assert_fault(&fault_of("", "ld.global.b32 %r1, [%out];", 1), FaultKind::UninitialisedMemory, "ld.global");
    let body = "st.global.b8 [%out], 1; ld.global.b32 %r1, [%out];";
    let fault = fault_of("", body, 1);
    assert!(fault.message.contains("byte 1 of out"), "{fault}");
    assert_fault(&fault_of(SHARED, "ld.shared.b32 %r1, [s];", 1), FaultKind::UninitialisedMemory, "ld.shared");
    let local = ".local .align 4 .b8 l[8];";
    assert_fault(&fault_of(local, "ld.local.b32 %r1, [l];", 1), FaultKind::UninitialisedMemory, "ld.local");
    let fault = fault_of("", "add.u32 %r1, %r2, 1;", 1);
    assert_fault(&fault, FaultKind::UninitialisedRegister, "add.u32");
    assert!(fault.message.contains("%r2"), "{fault}");
    // Written in some lanes only.
    let body = "setp.lt.u32 %p1, %id, 5; @%p1 mov.u32 %r1, 0;\nadd.u32 %r2, %r1, 1;";
    let fault = fault_of("", body, 32);
    assert_fault(&fault, FaultKind::UninitialisedRegister, "add.u32");
    assert_eq!(fault.place.expect("a place").thread, [5, 0, 0]);
    let fault = fault_of("", "@%p1 mov.u32 %r1, 0;", 1);
    assert_fault(&fault, FaultKind::UninitialisedRegister, "@%p1");
    assert!(fault.message.contains("%p1"), "{fault}");
    assert_fault(&fault_of("", "addc.u32 %r1, %id, 1;", 1), FaultKind::UninitialisedRegister, "addc");
    // Only what selp selects is read.
    let body = "setp.eq.u32 %p1, %id, %id; selp.b32 %r1, %id, %r2, %p1; st.global.b32 [%out], %r1;";
    run_words(&kernel("", body), Grid::linear(1, 1), &[0], 1);
}

#[test]
fn host_reads_what_was_written_only() {
    let mut device = Device::new();
    let a = device.alloc_named("a", 8).unwrap();
    device.upload(a, &[1, 2, 3, 4]).unwrap();
    assert_eq!(device.download(a, 4).unwrap(), [1, 2, 3, 4]);
    assert!(device.download(a, 8).unwrap_err().to_string().contains("byte 4 of a"));
    assert_eq!(device.download_or(a, 6, 9).unwrap(), [1, 2, 3, 4, 9, 9]);
    assert!(device.upload(a + 4, &[0; 5]).is_err());
    assert!(device.download_or(a + 8, 1, 0).is_err());
}

#[test]
fn pending_copies() {
    let copy = format!("{ADDRESS} cp.async.ca.shared.global [%r2], [%rd2], 4; cp.async.commit_group;");
    let read = format!("{copy} ld.shared.b32 %r3, [%r2];");
    assert_fault(&fault_of(SHARED, &read, 32), FaultKind::PendingCopy, "ld.shared");
    let write = format!("{copy} st.shared.b32 [%r2], 0;");
    assert_fault(&fault_of(SHARED, &write, 32), FaultKind::PendingCopy, "st.shared");
    // Another thread's copy: its wait must lie before the barrier.
    let other = |wait: &str| {
        format!(
            "{copy} {wait} bar.warp.sync -1; xor.b32 %r2, %r2, 4; ld.shared.b32 %r3, [%r2]; st.global.b32 [%rd3], %r3;"
        )
    };
    let fault = fault_of(SHARED, &other(""), 32);
    assert_fault(&fault, FaultKind::PendingCopy, "ld.shared");
    let input: Vec<u32> = (0..64).collect();
    let text = kernel(SHARED, &other("cp.async.wait_all;"));
    let (out, _) = run_words(&text, Grid::linear(1, 32), &input, 32);
    assert!(out.iter().enumerate().all(|(i, &v)| v as usize == i ^ 1));
}

#[test]
fn copies_fill_and_keep_their_order() {
    // Two groups in flight; the first is waited for, then the second.
    let body = format!(
        "{ADDRESS}
        cp.async.ca.shared.global [%r2], [%rd2], 4; cp.async.commit_group;
        cp.async.ca.shared.global [%r2+128], [%rd2+128], 4, 0; cp.async.commit_group;
        cp.async.wait_group 1; ld.shared.b32 %r3, [%r2];
        cp.async.wait_group 0; ld.shared.b32 %r4, [%r2+128];
        add.u32 %r3, %r3, %r4; st.global.b32 [%rd3], %r3;"
    );
    let input: Vec<u32> = (100..164).collect();
    let (out, _) = run_words(&kernel(SHARED, &body), Grid::linear(1, 32), &input, 32);
    assert!(out.iter().enumerate().all(|(i, &v)| v as usize == 100 + i), "the second is filled with zeros");
    // Nothing is read where the source has no bytes: it may lie anywhere.
    let body = format!(
        "{ADDRESS} setp.ge.u32 %p1, %id, 8; selp.b32 %r5, 0, 16, %p1; shl.b32 %r6, %id, 4; mov.u32 %r7, s;
        and.b32 %r6, %r6, 127; add.u32 %r7, %r7, %r6; mul.wide.u32 %rd4, %id, 16; add.s64 %rd4, %rd4, %in;
        setp.lt.u32 %p2, %id, 8; @%p2 cp.async.cg.shared.global.L2::128B [%r7], [%rd4], 16, %r5;
        cp.async.wait_all; @!%p2 exit; ld.shared.b32 %r8, [%r7]; st.global.b32 [%rd3], %r8;"
    );
    let (out, _) = run_words(&kernel(SHARED, &body), Grid::linear(1, 32), &input, 8);
    assert!(out.iter().enumerate().all(|(i, &v)| v as usize == 100 + 4 * i));
}

#[test]
fn divergent_barriers() {
    let body = "setp.lt.u32 %p1, %id, 7; @%p1 bra SKIP; bar.sync 0; SKIP: mov.u32 %r1, 0;";
    let fault = fault_of("", body, 32);
    assert_fault(&fault, FaultKind::DivergentBarrier, "bar.sync");
    assert!(fault.message.contains("25 of the 32 threads"), "{fault}");
    let body = "setp.lt.u32 %p1, %id, 7; @%p1 bar.sync 0;";
    assert_fault(&fault_of("", body, 32), FaultKind::DivergentBarrier, "bar.sync");
    let body = "setp.lt.u32 %p1, %id, 7; @%p1 shfl.sync.bfly.b32 %r1, %id, 1, 31, -1;";
    assert_fault(&fault_of("", body, 32), FaultKind::DivergentBarrier, "shfl");
    let body = "shfl.sync.bfly.b32 %r1, %id, 1, 31, 0xff;";
    let fault = fault_of("", body, 32);
    assert_fault(&fault, FaultKind::DivergentBarrier, "shfl");
    assert_eq!(fault.place.as_ref().expect("a place").thread, [8, 0, 0]);
    // A lane that is in the mask but whose partner is not.
    let body = "setp.lt.u32 %p1, %id, 7; @%p1 shfl.sync.down.b32 %r1, %id, 1, 31, 0x7f;";
    assert_fault(&fault_of("", body, 32), FaultKind::DivergentBarrier, "shfl");
    assert_fault(&fault_of("", "mov.u32 %r1, 33; bar.sync 0, %r1;", 64), FaultKind::DivergentBarrier, "bar.sync");
    let body = "setp.lt.u32 %p1, %id, 7; @%p1 bra A; bar.warp.sync -1; A: mov.u32 %r1, 0;";
    assert_fault(&fault_of("", body, 32), FaultKind::DivergentBarrier, "bar.warp.sync");
    let body = "mov.b32 %r0, 0; setp.lt.u32 %p1, %id, 16; @%p1 mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32
        {%f0, %f1, %f2, %f3}, {%r0, %r0}, {%r0}, {0f00000000, 0f00000000, 0f00000000, 0f00000000};";
    let body = body.replace("0f00000000", "%f0");
    assert_fault(&fault_of("", &body, 32), FaultKind::DivergentBarrier, "mma");
}

#[test]
fn deadlocks() {
    // Half of the warps wait at another barrier.
    let body = "setp.lt.u32 %p1, %id, 32; @%p1 bra A; bar.sync 1; bra.uni B; A: bar.sync 0; B: mov.u32 %r1, 0;";
    let fault = fault_of("", body, 64);
    assert_eq!(fault.kind, FaultKind::Deadlock);
    assert!(fault.message.contains("warp 0 waits at barrier 0") && fault.message.contains("warp 1 waits at barrier 1"));
    let body = "setp.lt.u32 %p1, %id, 32; @%p1 exit; bar.sync 0, 64;";
    assert_eq!(fault_of("", body, 64).kind, FaultKind::Deadlock);
}

#[test]
fn shared_memory_races() {
    // Written by one warp, read by the other.
    let across = |between: &str| {
        format!(
            "{ADDRESS} st.shared.b32 [%r2], %id; {between} xor.b32 %r3, %r2, 128; and.b32 %r4, %r3, 255;
             mov.u32 %r5, s; and.b32 %r5, %r5, 255; setp.eq.u32 %p1, %r5, 0; @!%p1 trap;
             ld.shared.b32 %r6, [%r3]; st.global.b32 [%rd3], %r6;"
        )
    };
    let fault = fault_of(SHARED, &across(""), 64);
    assert!(matches!(fault.kind, FaultKind::Race | FaultKind::UninitialisedMemory), "{fault}");
    let input: Vec<u32> = (0..64).collect();
    let (out, _) = run_words(&kernel(SHARED, &across("bar.sync 0;")), Grid::linear(1, 64), &input, 64);
    assert!(out.iter().enumerate().all(|(i, &v)| v as usize == i ^ 32));
    let fault = fault_of(SHARED, &across("bar.warp.sync -1;"), 64);
    assert!(matches!(fault.kind, FaultKind::Race | FaultKind::UninitialisedMemory), "{fault}");
    // Read, then written by another warp without a barrier.
    let body = format!(
        "{ADDRESS} st.shared.b32 [%r2], %id; bar.sync 0; ld.shared.b32 %r3, [%r2]; xor.b32 %r4, %r2, 128;
         st.shared.b32 [%r4], 0;"
    );
    let fault = fault_of(SHARED, &body, 64);
    assert_eq!(fault.kind, FaultKind::Race);
    assert!(fault.message.contains("lane 0 of warp 0"), "{fault}");
    // Two lanes of one instruction write the same word.
    let fault = fault_of(SHARED, "st.shared.b32 [s], %id;", 32);
    assert_fault(&fault, FaultKind::Race, "st.shared");
    // Neighbouring bytes of one word do not race.
    let body = format!(
        "{ADDRESS} mov.u32 %r3, s; add.u32 %r3, %r3, %id; st.shared.b8 [%r3], %id; bar.sync 0; ld.shared.b32 %r4, [s];
         st.global.b32 [%rd3], %r4;"
    );
    let (out, _) = run_words(&kernel(SHARED, &body), Grid::linear(1, 64), &input, 64);
    assert!(out.iter().all(|&v| v == 0x0302_0100));
    // Lock step orders nothing within a warp; a warp barrier does.
    let within = |between: &str| {
        format!(
            "{ADDRESS} st.shared.b32 [%r2], %id; {between} xor.b32 %r3, %r2, 4; ld.shared.b32 %r4, [%r3];
             st.global.b32 [%rd3], %r4;"
        )
    };
    assert_fault(&fault_of(SHARED, &within(""), 32), FaultKind::Race, "ld.shared");
    run_words(&kernel(SHARED, &within("bar.warp.sync -1;")), Grid::linear(1, 32), &input, 32);
    // A barrier of the first two warps does not order the third.
    let body = format!(
        "{ADDRESS} setp.ge.u32 %p1, %id, 64; @%p1 bra THIRD; st.shared.b32 [%r2], %id; bar.sync 1, 64; bra.uni END;
         THIRD: st.shared.b32 [s], 1; END: mov.u32 %r5, 0;"
    );
    assert_eq!(fault_of(SHARED, &body, 96).kind, FaultKind::Race);
    // Atomics on one word do not race with each other, but do with a plain read.
    let count = |between: &str| {
        format!(
            "{ADDRESS} setp.eq.u32 %p1, %id, 0; @%p1 st.shared.b32 [s], 0; bar.sync 0; atom.shared.add.u32 %r3, [s], 1;
             {between} ld.shared.b32 %r4, [s]; st.global.b32 [%rd3], %r4;"
        )
    };
    let (out, _) = run_words(&kernel(SHARED, &count("bar.sync 0;")), Grid::linear(1, 64), &input, 64);
    assert!(out.iter().all(|&v| v == 64));
    assert_fault(&fault_of(SHARED, &count(""), 64), FaultKind::Race, "ld.shared");
}

#[test]
fn producers_and_consumers() {
    // Warp 0 writes and arrives; warp 1 waits and reads.
    let body = format!(
        "{ADDRESS} setp.ge.u32 %p1, %id, 32; @%p1 bra READ; st.shared.b32 [%r2], %id; bar.arrive 3, 64; bra.uni END;
         READ: bar.sync 3, 64; sub.u32 %r3, %r2, 128; ld.shared.b32 %r4, [%r3]; st.global.b32 [%rd3], %r4;
         END: mov.u32 %r5, 0;"
    );
    let (out, _) = run_words(&kernel(SHARED, &body), Grid::linear(1, 64), &[0; 64], 64);
    assert!(out[32..].iter().enumerate().all(|(i, &v)| v as usize == i));
}

#[test]
fn barriers_reduce() {
    let body = format!(
        "{ADDRESS} setp.lt.u32 %p1, %id, 40; bar.red.popc.u32 %r3, 0, %p1; bar.red.and.pred %p2, 1, %p1;
         bar.red.or.pred %p3, 2, %p1; selp.b32 %r4, 1000, 0, %p2; add.u32 %r3, %r3, %r4; selp.b32 %r4, 2000, 0, %p3;
         add.u32 %r3, %r3, %r4; st.global.b32 [%rd3], %r3;"
    );
    let (out, _) = run_words(&kernel(SHARED, &body), Grid::linear(1, 64), &[0; 64], 64);
    assert!(out.iter().all(|&v| v == 2040));
}

#[test]
fn global_races() {
    let races = |body: &str, blocks: u32| {
        let options = Options { global_races: true, ..Options::default() };
        let input: Vec<u32> = (0..64).collect();
        try_words(&kernel("", body), Grid::linear(blocks, 32), &input, 64, options)
    };
    let own = "mul.wide.u32 %rd1, %id, 4; add.s64 %rd1, %rd1, %out; st.global.b32 [%rd1], 1;";
    races(own, 1).unwrap();
    let fault = races(own, 2).unwrap_err();
    assert_fault(&fault, FaultKind::Race, "st.global");
    run_words(&kernel("", own), Grid::linear(2, 32), &[0], 64);
    assert_eq!(races("st.global.b32 [%out], %id;", 1).unwrap_err().kind, FaultKind::Race);
    races("red.global.add.u32 [%in], 1;", 2).unwrap();
    // The last block to count reads what both have stored: ordered by fences, or by the order of the atomic itself.
    let last = |before: &str, order: &str, after: &str| {
        let body = format!(
            "mov.u32 %r1, %ctaid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd2, %out; setp.ne.u32 %p2, %id, 0;
             @%p2 exit; st.global.u32 [%rd2], %r1; {before} atom{order}.global.add.u32 %r3, [%in], 1; {after}
             setp.ne.u32 %p1, %r3, 1; @%p1 exit; ld.global.u32 %r4, [%out]; st.global.u32 [%out+8], %r4;"
        );
        races(&body, 2)
    };
    last("membar.gl;", "", "membar.gl;").unwrap();
    last("", ".acq_rel.gpu", "").unwrap();
    assert_fault(&last("", "", "membar.gl;").unwrap_err(), FaultKind::Race, "ld.global.u32 %r4");
    assert_fault(&last("membar.gl;", "", "").unwrap_err(), FaultKind::Race, "ld.global.u32 %r4");
}

#[test]
fn other_faults() {
    assert_fault(&fault_of("", "mov.u32 %r1, 0; div.u32 %r2, %id, %r1;", 1), FaultKind::DivisionByZero, "div.u32");
    assert_fault(&fault_of("", "setp.eq.u32 %p1, %id, 3; @%p1 trap;", 32), FaultKind::Trap, "trap");
    let options = Options { step_limit: 10_000, ..Options::default() };
    let text = kernel("", "L: bra L;");
    let fault = try_words(&text, Grid::linear(1, 1), &[0], 1, options).unwrap_err();
    assert_fault(&fault, FaultKind::StepLimit, "bra L");
    let text = format!(
        "{HEADER}.func f() {{ call f, (); ret; }}
        .visible .entry k(.param .u64 in, .param .u64 out) {{ call f, ();\nret; }}"
    );
    let fault = try_words(&text, Grid::linear(1, 1), &[0], 1, Options::default()).unwrap_err();
    assert_eq!(fault.kind, FaultKind::CallDepth);
    let constant = format!(
        "{HEADER}.const .u32 c = 7;
        .visible .entry k(.param .u64 in, .param .u64 out) {{
        .reg .b64 %rd<2>; mov.u64 %rd0, c; cvta.const.u64 %rd1, %rd0; st.b32 [%rd1], 1; ret; }}"
    );
    let fault = try_words(&constant, Grid::linear(1, 1), &[0], 1, Options::default()).unwrap_err();
    assert_fault(&fault, FaultKind::OutOfBounds, "st.b32");
}

#[test]
fn wrong_launches() {
    let text = format!("{HEADER}.visible .entry k(.param .u32 n, .param .f32 x) .reqntid 64 {{ ret; }}");
    let module = Module::parse(&text).unwrap();
    let mut device = Device::new();
    let mut launch = |kernel: &str, grid: Grid, args: &[Arg]| match device.launch(&module, kernel, grid, args) {
        Ok(_) => String::new(),
        Err(fault) => {
            assert_eq!(fault.kind, FaultKind::Launch);
            fault.to_string()
        }
    };
    let args = [Arg::U32(1), Arg::F32(1.0)];
    assert_eq!(launch("k", Grid::linear(1, 64), &args), "");
    assert!(launch("l", Grid::linear(1, 64), &args).contains("no kernel l"));
    assert!(launch("k", Grid::linear(1, 64), &args[..1]).contains("takes 2 arguments"));
    assert!(launch("k", Grid::linear(1, 64), &[Arg::U64(1), Arg::F32(1.0)]).contains("not one for n"));
    assert!(launch("k", Grid::linear(1, 64), &[Arg::U32(1), Arg::U32(1)]).contains("not one for x"));
    assert!(launch("k", Grid::linear(1, 32), &args).contains("required"));
    assert!(launch("k", Grid::linear(0, 64), &args).contains("no grid"));
    assert!(launch("k", Grid::linear(1, 2048), &args).contains("no block"));
    assert!(launch("k", Grid::linear(1, 64).with_shared(1 << 20), &args).contains("too many"));
}
