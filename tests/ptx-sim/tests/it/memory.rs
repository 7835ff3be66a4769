//! State spaces, addressing, vectors, atomics, and the counts of transactions.

use lehr_ptx_sim::{Arg, Device, Grid, MemoryKind};

use crate::common::{HEADER, from_bytes, kernel, map, module, run_words};

const STORE: &str = "mul.wide.u32 %rd1, %id, 4; add.s64 %rd1, %rd1, %out;";

fn words(declarations: &str, body: &str, input: &[u32], threads: u32) -> Vec<u32> {
    let text = kernel(declarations, &format!("{STORE}\n{body}"));
    run_words(&text, Grid::linear(1, threads), input, threads as usize).0
}

#[test]
fn widths_and_extensions() {
    let row = |v: u64| vec![v];
    let through = |store: &str, load: &str, value: u64| {
        let body = format!(
            "ld.param.u64 %rd0, [out]; mad.wide.u32 %rd1, %id, 8, %rd0; st.global.{store} [%rd1], %a;
             mov.b64 %rd2, 0; ld.global.{load} %rd2, [%rd1]; mov.b64 %d, %rd2;"
        );
        map(&[8], 8, &body, &[row(value)])[0]
    };
    assert_eq!(through("b8", "u8", 0x1ff), 0xff);
    assert_eq!(through("b8", "s8", 0x180), -128i64 as u64);
    assert_eq!(through("b16", "s16", 0x1_8000), -32768i64 as u64);
    assert_eq!(through("u32", "s32", 0xffff_fffe), -2i64 as u64);
    assert_eq!(through("u32", "u32", 0x1_ffff_fffe), 0xffff_fffe);
    let out = words("", "ld.global.s16 %r1, [%in]; st.global.s32 [%rd1], %r1;", &[0x8765], 1);
    assert_eq!(out[0] as i32, 0x8765u16 as i16 as i32);
}

#[test]
fn vectors() {
    let body = "mul.wide.u32 %rd2, %id, 16; add.s64 %rd2, %rd2, %in;
        ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%r1, %r2, %r3, %r4}, [%rd2];
        ld.global.v2.b64 {%rd3, %rd4}, [%rd2]; cvt.u32.u64 %r5, %rd4; sub.u32 %r5, %r5, %r3;
        ld.global.v4.b32 {_, %r6, _, _}, [%rd2]; add.u32 %r5, %r5, %r6;
        mad.lo.u32 %r1, %r1, 1000, %r4; sub.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r5; st.global.b32 [%rd1], %r1;";
    let input: Vec<u32> = (0..64).collect();
    let out = words("", body, &input, 16);
    assert!(out.iter().enumerate().all(|(i, &v)| v as usize == 4 * i * 1000 + 4 * i + 3));
    let body = "shl.b32 %r1, %id, 4; mov.u32 %r2, s; add.u32 %r2, %r2, %r1;
        st.shared.v4.f32 [%r2], {0f3F800000, 0f40000000, 0f40400000, 0f40800000};
        ld.shared.v2.f32 {%f1, %f2}, [%r2+8]; add.f32 %f1, %f1, %f2; cvt.rzi.u32.f32 %r3, %f1; st.global.b32 [%rd1], %r3;";
    let body = body.replace("0f3F800000, 0f40000000, 0f40400000, 0f40800000", "%f3, %f4, %f5, %f6");
    let set = "mov.f32 %f3, 0f3F800000; mov.f32 %f4, 2.0; mov.f32 %f5, 3.0e0; mov.f32 %f6, 4.0;";
    assert_eq!(words(".shared .align 16 .b8 s[512];", &format!("{set}{body}"), &[0], 32), [7; 32]);
    let bytes = "ld.global.v4.u8 {%r1, %r2, %r3, %r4}, [%in]; shl.b32 %r4, %r4, 8; or.b32 %r1, %r1, %r4;
        st.global.b32 [%rd1], %r1;";
    assert_eq!(words("", bytes, &[0x8877_6655], 1), [0x8855]);
}

#[test]
fn address_forms() {
    let body = "mov.u32 %r1, s; st.shared.u32 [s+4], 11; st.shared.u32 [%r1+8], 22; add.u32 %r2, %r1, 16;
        st.shared.u32 [%r2+-4], 33; ld.shared.u32 %r3, [%r2+-12]; ld.shared.u32 %r4, [s+8];
        mov.u32 %r5, s+12; ld.shared.u32 %r5, [%r5]; mad.lo.u32 %r3, %r3, 10000, %r5; mad.lo.u32 %r3, %r4, 100, %r3;
        cvt.u64.u32 %rd2, %r1; ld.shared.u32 %r6, [%rd2+4]; add.u32 %r3, %r3, %r6; st.global.u32 [%rd1], %r3;";
    assert_eq!(words(".shared .align 4 .b8 s[16];", body, &[0], 1), [11 * 10000 + 22 * 100 + 33 + 11]);
}

#[test]
fn generic_addresses() {
    let body = "mov.u64 %rd2, s; cvta.shared.u64 %rd3, %rd2; st.u32 [%rd3], 5; ld.shared.u32 %r1, [s];
        mov.u64 %rd4, l; cvta.local.u64 %rd5, %rd4; add.u32 %r2, %id, 100; st.u32 [%rd5+4], %r2; ld.local.u32 %r3, [l+4];
        cvta.to.shared.u64 %rd6, %rd3; ld.shared.u32 %r4, [%rd6];
        isspacep.shared %p1, %rd3; isspacep.global %p2, %in; isspacep.local %p3, %rd5;
        and.pred %p1, %p1, %p2; and.pred %p1, %p1, %p3; isspacep.local %p2, %rd3; not.pred %p2, %p2; and.pred %p1, %p1, %p2;
        selp.u32 %r5, 1000, 0, %p1; add.u32 %r1, %r1, %r3; add.u32 %r1, %r1, %r4; add.u32 %r1, %r1, %r5;
        st.u32 [%rd1], %r1; ld.u32 %r6, [%rd1];";
    let declarations = ".shared .u32 s;\n.local .align 4 .b8 l[8];";
    assert_eq!(words(declarations, body, &[0], 1), [5 + 100 + 5 + 1000]);
    let local = "mov.u64 %rd4, l; cvta.local.u64 %rd5, %rd4; add.u32 %r2, %id, 100; st.u32 [%rd5], %r2;
        bar.warp.sync -1; ld.local.u32 %r3, [l]; st.global.u32 [%rd1], %r3;";
    assert_eq!(words(declarations, local, &[0], 32), (100..132).collect::<Vec<u32>>(), "each thread has its own");
}

#[test]
fn module_variables() {
    let text = format!(
        "{HEADER}
.const .align 4 .f32 table[3] = {{0f3F800000, 2.5, -4.0}};
.global .align 8 .u32 counter = 10;
.global .align 4 .b8 bytes[4] = {{1, 2, 0xff}};
.visible .entry k(.param .u64 in, .param .u64 out) {{
    .reg .b32 %r<8>; .reg .b64 %rd<8>; .reg .f32 %f<4>;
    ld.param.u64 %rd1, [out];
    ld.const.f32 %f1, [table+4];
    mov.u64 %rd2, table; ld.const.f32 %f2, [%rd2+8]; add.f32 %f1, %f1, %f2; cvt.rni.s32.f32 %r1, %f1;
    st.global.s32 [%rd1], %r1;
    ld.global.u32 %r2, [counter]; add.u32 %r2, %r2, 1; st.global.u32 [counter], %r2; st.global.u32 [%rd1+4], %r2;
    ld.global.u32 %r3, [bytes]; st.global.u32 [%rd1+8], %r3;
    ret;
}}"
    );
    let module = module(&text);
    let mut device = Device::new();
    let out = device.alloc(12).unwrap();
    for run in 1..3 {
        device.launch(&module, "k", Grid::linear(1, 1), &[Arg::U64(0), Arg::U64(out)]).unwrap();
        let found = from_bytes(&device.download(out, 12).unwrap(), 4);
        assert_eq!(found[0] as i32, -2, "-1.5 to even");
        assert_eq!(found[1], 10 + run, "global variables live as long as the device");
        assert_eq!(found[2], 0x00ff_0201);
    }
    let counter = device.variable(&module, "counter").unwrap();
    assert_eq!(device.download(counter, 4).unwrap(), [12, 0, 0, 0]);
    assert!(device.variable(&module, "other").is_err());
}

#[test]
fn structures_as_arguments() {
    let text = format!(
        "{HEADER}.visible .entry k(.param .u8 flag, .param .align 16 .b8 point[16], .param .u64 .ptr .global .align 16 out) {{
    .reg .b32 %r<8>; .reg .b16 %h; .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out]; ld.param.v2.u32 {{%r1, %r2}}, [point+8]; ld.param.u8 %h, [flag]; cvt.u32.u16 %r3, %h;
    mad.lo.u32 %r1, %r1, %r2, %r3; st.global.u32 [%rd1], %r1; ret;
}}"
    );
    let module = module(&text);
    let mut device = Device::new();
    let out = device.alloc(4).unwrap();
    let point: Vec<u8> = [1u32, 2, 30, 40].iter().flat_map(|v| v.to_le_bytes()).collect();
    let args = [Arg::U8(7), Arg::Bytes(point), Arg::U64(out)];
    device.launch(&module, "k", Grid::linear(1, 1), &args).unwrap();
    assert_eq!(from_bytes(&device.download(out, 4).unwrap(), 4), [1207]);
}

#[test]
fn dynamic_shared_memory() {
    let text = format!(
        "{HEADER}
.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(.param .u64 in, .param .u64 out) {{
    .reg .b32 %r<8>; .reg .b64 %rd<4>; .shared .align 4 .b8 fixed[4];
    ld.param.u64 %rd1, [out]; mov.u32 %r1, dynamic; st.shared.u32 [fixed], 3; st.shared.u32 [%r1+60], 4;
    ld.shared.u32 %r2, [fixed]; ld.shared.u32 %r3, [dynamic+60]; mad.lo.u32 %r2, %r2, 10, %r3;
    mov.u32 %r4, %dynamic_smem_size; mad.lo.u32 %r2, %r4, 100, %r2; st.global.u32 [%rd1], %r2; ret;
}}"
    );
    let grid = Grid::linear(1, 1);
    let (out, _) = run_words(&text, grid.with_shared(64), &[0], 1);
    assert_eq!(out, [6434]);
    let fault = crate::common::try_words(&text, grid.with_shared(60), &[0], 1, Default::default()).unwrap_err();
    assert!(fault.to_string().contains("byte 60 of dynamic shared memory (60 bytes)"), "{fault}");
}

#[test]
fn atomics() {
    let step = |op: &str, ty: &str, start: u32, operand: &str| {
        let body = format!(
            "setp.eq.u32 %p1, %id, 0; @%p1 st.shared.u32 [s], {start}; bar.sync 0;
             add.u32 %r1, %id, 1; atom.shared.{op}.{ty} %r2, [s], {operand}; bar.sync 0; ld.shared.u32 %r3, [s];
             st.global.u32 [%rd1], %r3;"
        );
        words(".shared .u32 s;", &body, &[0], 32)[0]
    };
    assert_eq!(step("add", "u32", 5, "%r1"), 5 + 528);
    assert_eq!(step("min", "s32", 5, "-7"), -7i32 as u32);
    assert_eq!(step("min", "u32", 5, "-7"), 5);
    assert_eq!(step("max", "u32", 5, "%r1"), 32);
    assert_eq!(step("and", "b32", 0xff, "0x3c"), 0x3c);
    assert_eq!(step("or", "b32", 0, "%r1"), 63);
    assert_eq!(step("xor", "b32", 0, "%r1"), (1..33).fold(0, |a, b| a ^ b));
    assert_eq!(step("exch", "b32", 0, "%r1"), 32, "the last lane's");
    assert_eq!(step("inc", "u32", 0, "9"), 32 % 10);
    assert_eq!(step("dec", "u32", 3, "9"), 1);
    assert_eq!(step("cas", "b32", 7, "%r1, 100"), 100, "lane 6 finds 7");
    let body = "mov.f32 %f1, 0f3F000000; red.global.add.f32 [%in], %f1; atom.global.add.noftz.f16x2 %r1, [%in+4], %r2;
        bar.sync 0; @!%p1 exit; ld.global.b32 %r3, [%in]; st.global.b32 [%rd1], %r3; ld.global.b32 %r3, [%in+4];
        st.global.b32 [%rd1+4], %r3;";
    let body = format!("setp.eq.u32 %p1, %id, 0; mov.b32 %r2, 0x3c004000; {body}");
    let out = words("", &body, &[1f32.to_bits(), 0x3c00_3c00], 32);
    assert_eq!(f32::from_bits(out[0]), 17.0);
    assert_eq!(out[1], 0x5020_5410, "33 and 65 in f16");
    let body = "red.global.add.u64 [%in], %rd2; red.relaxed.gpu.global.max.s64 [%in+8], %rd2; bar.sync 0;
        ld.global.v2.u32 {%r1, %r2}, [%in]; ld.global.u32 %r3, [%in+8]; add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3;
        st.global.u32 [%rd1], %r1;";
    let body = format!("mov.u64 %rd2, 0x100000001; {body}");
    let out = words("", &body, &[0, 0, 0, 0], 2);
    assert_eq!(out[0], 2 + 2 + 1);
}

#[test]
fn blocks_meet_through_atomics() {
    // The last block to count adds up what all have stored: the pattern of split reductions.
    let body = "mov.u32 %r1, %ctaid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd2, %in; add.u32 %r2, %r1, 1;
        st.global.u32 [%rd2+4], %r2; membar.gl; atom.global.inc.u32 %r3, [%in], 7; setp.ne.u32 %p1, %r3, 7; @%p1 exit;
        fence.acq_rel.gpu; mov.u32 %r4, 0; mov.u32 %r5, 0;
        L: ld.global.u32 %r6, [%in+4]; add.u32 %r5, %r5, %r6; add.s64 %in, %in, 4; add.u32 %r4, %r4, 1;
        setp.lt.u32 %p2, %r4, 8; @%p2 bra L; st.global.u32 [%out], %r5;";
    let (out, _) = run_words(&kernel("", body), Grid::linear(8, 1), &[0; 9], 1);
    assert_eq!(out, [36]);
}

/// The statistics of the line that holds `instruction`.
fn line_stats(body: &str, instruction: &str, kind: MemoryKind) -> (u64, u64) {
    let declarations = ".shared .align 16 .b8 s[8192];";
    let text = kernel(declarations, &format!("{STORE}\n{body}"));
    let input: Vec<u32> = (0..2048).collect();
    let (_, stats) = run_words(&text, Grid::linear(1, 32), &input, 1024);
    let line = 1 + text.lines().position(|l| l.contains(instruction)).expect("the line") as u32;
    let stats = stats.line(line, kind);
    assert_eq!(stats.requests, 1);
    (stats.transactions, stats.ideal)
}

#[test]
fn coalescing_is_counted() {
    let load = |stride: u32, offset: u32, ty: &str, regs: &str| {
        let body = format!(
            "mul.wide.u32 %rd2, %id, {stride}; add.s64 %rd2, %rd2, %in;\nld.global.{ty} {regs}, [%rd2+{offset}];"
        );
        line_stats(&body, "ld.global", MemoryKind::Global)
    };
    assert_eq!(load(4, 0, "f32", "%f1"), (4, 4));
    assert_eq!(load(4, 16, "f32", "%f1"), (5, 4), "one sector more where the start is not aligned");
    assert_eq!(load(128, 0, "f32", "%f1"), (32, 4), "a column: a sector for each lane");
    assert_eq!(load(8, 0, "f32", "%f1"), (8, 4));
    assert_eq!(load(0, 0, "f32", "%f1"), (1, 1), "a broadcast");
    assert_eq!(load(16, 0, "v4.f32", "{%f1, %f2, %f3, %f4}"), (16, 16));
}

#[test]
fn bank_conflicts_are_counted() {
    let store = |stride: u32, ty: &str, regs: &str| {
        let body = format!(
            "mul.lo.u32 %r1, %id, {stride}; mov.u32 %r2, s; add.u32 %r2, %r2, %r1; mov.f32 %f1, 0f00000000;\n\
             st.shared.{ty} [%r2], {regs};"
        );
        line_stats(&body, "st.shared", MemoryKind::Shared)
    };
    assert_eq!(store(4, "f32", "%f1"), (1, 1));
    assert_eq!(store(8, "f32", "%f1"), (2, 1));
    assert_eq!(store(128, "f32", "%f1"), (32, 1), "a column without padding");
    assert_eq!(store(132, "f32", "%f1"), (1, 1), "and with");
    assert_eq!(store(8, "v2.f32", "{%f1, %f1}"), (2, 2));
    assert_eq!(store(16, "v4.f32", "{%f1, %f1, %f1, %f1}"), (4, 4));
    assert_eq!(store(32, "v4.f32", "{%f1, %f1, %f1, %f1}"), (8, 4));
}
