//! What warps do together, and how lanes part and meet.

use lehr_ptx_sim::{Arg, Device, Grid};

use crate::common::{HEADER, kernel, module, run_words};

const STORE: &str = "mul.wide.u32 %rd1, %id, 4; add.s64 %rd1, %rd1, %out;";

fn words(body: &str, threads: u32) -> Vec<u32> {
    run_words(&kernel("", &format!("{STORE}\n{body}")), Grid::linear(1, threads), &[0], threads as usize).0
}

#[test]
fn shuffles() {
    let run = |mode: &str, b: &str, c: &str| {
        words(
            &format!(
                "add.u32 %r1, %id, 100; shfl.sync.{mode}.b32 %r2|%p1, %r1, {b}, {c}, -1;
                 selp.b32 %r3, 1000, 0, %p1; add.u32 %r2, %r2, %r3; st.global.b32 [%rd1], %r2;"
            ),
            32,
        )
    };
    let expect = |f: &dyn Fn(u32) -> (u32, bool)| -> Vec<u32> {
        (0..32)
            .map(|lane| {
                let (source, ok) = f(lane);
                100 + source + if ok { 1000 } else { 0 }
            })
            .collect()
    };
    assert_eq!(run("up", "3", "0"), expect(&|l| if l >= 3 { (l - 3, true) } else { (l, false) }));
    assert_eq!(run("down", "5", "31"), expect(&|l| if l + 5 < 32 { (l + 5, true) } else { (l, false) }));
    assert_eq!(run("bfly", "7", "31"), expect(&|l| (l ^ 7, true)));
    assert_eq!(run("idx", "9", "31"), expect(&|_| (9, true)));
    // Segments of eight lanes: the mask is 0b11000 in bits 8 to 12.
    let eight = (0x18 << 8 | 31).to_string();
    assert_eq!(run("idx", "2", &eight), expect(&|l| (l / 8 * 8 + 2, true)));
    let inside = |l: u32, by: u32| if l % 8 + by < 8 { (l + by, true) } else { (l, false) };
    assert_eq!(run("down", "3", &(0x18 << 8 | 7).to_string()), expect(&|l| inside(l, 3)));
    let up = (0x18 << 8).to_string();
    assert_eq!(run("up", "1", &up), expect(&|l| if l % 8 > 0 { (l - 1, true) } else { (l, false) }));
}

#[test]
fn votes_and_reductions() {
    let out = words("setp.lt.u32 %p1, %id, 5; vote.sync.ballot.b32 %r1, %p1, -1; st.global.b32 [%rd1], %r1;", 32);
    assert!(out.iter().all(|&v| v == 31));
    for (mode, expected) in [("all", 0), ("any", 1), ("uni", 0)] {
        let out = words(
            &format!(
                "setp.lt.u32 %p1, %id, 5; vote.sync.{mode}.pred %p2, %p1, -1;
                 selp.b32 %r1, 1, 0, %p2; st.global.b32 [%rd1], %r1;"
            ),
            32,
        );
        assert!(out.iter().all(|&v| v == expected), "{mode}");
    }
    let redux = |op: &str, ty: &str| {
        let body = format!("sub.s32 %r1, %id, 3; redux.sync.{op}.{ty} %r2, %r1, -1; st.global.b32 [%rd1], %r2;");
        words(&body, 32)[7] as i32
    };
    let values = (0..32).map(|i| i - 3);
    assert_eq!(redux("add", "s32"), values.clone().sum());
    assert_eq!(redux("min", "s32"), -3);
    assert_eq!(redux("max", "s32"), 28);
    assert_eq!(redux("max", "u32"), -1);
    assert_eq!(redux("and", "b32"), values.clone().fold(-1, |a, b| a & b));
    assert_eq!(redux("or", "b32"), values.clone().fold(0, |a, b| a | b));
    assert_eq!(redux("xor", "b32"), values.fold(0, |a, b| a ^ b));
    let out = words("activemask.b32 %r1; st.global.b32 [%rd1], %r1;", 12);
    assert!(out.iter().all(|&v| v == 0xfff));
    let out = words("and.b32 %r1, %id, 3; match.any.sync.b32 %r2, %r1, -1; st.global.b32 [%rd1], %r2;", 32);
    assert!(out.iter().enumerate().all(|(l, &v)| v == 0x1111_1111 << (l % 4)));
    let out = words(
        "match.all.sync.b32 %r2|%p1, 7, -1; selp.b32 %r3, 1, 0, %p1; add.u32 %r2, %r2, %r3; st.global.b32 [%rd1], %r2;",
        32,
    );
    assert!(out.iter().all(|&v| v == 0), "the full mask, and one");
    let out = words("elect.sync %r1|%p1, -1; selp.b32 %r2, 9, 0, %p1; st.global.b32 [%rd1], %r2;", 32);
    assert_eq!(out[0], 9);
    assert!(out[1..].iter().all(|&v| v == 0));
}

#[test]
fn lanes_part_and_meet() {
    // A loop of as many turns as the lane's number, with an if in it; all lanes meet behind it.
    let body = format!(
        "{STORE}
    mov.u32 %r1, 0; mov.u32 %r2, 0;
LOOP:
    setp.ge.u32 %p1, %r1, %id;
    @%p1 bra BEHIND;
    and.b32 %r3, %r1, 1;
    setp.eq.u32 %p2, %r3, 0;
    @%p2 bra EVEN;
    add.u32 %r2, %r2, 10;
    bra.uni JOIN;
EVEN:
    add.u32 %r2, %r2, 1;
JOIN:
    add.u32 %r1, %r1, 1;
    bra LOOP;
BEHIND:
    activemask.b32 %r4;
    setp.eq.u32 %p3, %r4, -1;
    @%p3 add.u32 %r2, %r2, 1000;
    st.global.b32 [%rd1], %r2;"
    );
    let (out, stats) = run_words(&kernel("", &body), Grid::linear(1, 32), &[0], 32);
    let expected: Vec<u32> = (0..32).map(|n: u32| n.div_ceil(2) + n / 2 * 10 + 1000).collect();
    assert_eq!(out, expected);
    assert_eq!(stats.divergent_branches, 31);
}

#[test]
fn lanes_that_exit_are_not_waited_for() {
    let body = format!(
        "{STORE}
    setp.ge.u32 %p1, %id, 40;
    @%p1 exit;
    setp.lt.u32 %p2, %id, 3;
    @%p2 bra LEAVE;
    bar.sync 0;
    mov.u32 %r1, 5;
    st.global.b32 [%rd1], %r1;
    bra END;
LEAVE:
    ret;
END:"
    );
    let (out, _) = run_words(&kernel("", &body), Grid::linear(1, 64), &[0], 64);
    for (i, v) in out.iter().enumerate() {
        assert_eq!(*v, if (3..40).contains(&i) { 5 } else { 0xeeee_eeee });
    }
}

#[test]
fn indexed_branches() {
    let body = format!(
        "{STORE}
    and.b32 %r1, %id, 3;
TABLE: .branchtargets A, B, C, B;
    brx.idx %r1, TABLE;
A:  mov.u32 %r2, 10; bra DONE;
B:  mov.u32 %r2, 20; bra DONE;
C:  mov.u32 %r2, 30;
DONE:
    st.global.b32 [%rd1], %r2;"
    );
    let (out, _) = run_words(&kernel("", &body), Grid::linear(1, 32), &[0], 32);
    assert!(out.iter().enumerate().all(|(i, &v)| v == [10, 20, 30, 20][i % 4]));
}

#[test]
fn calls() {
    let text = format!(
        "{HEADER}
.func (.param .b32 result) power(.param .b32 base, .param .b32 exponent) {{
    .reg .b32 %r<6>; .reg .pred %p;
    ld.param.u32 %r1, [base];
    ld.param.u32 %r2, [exponent];
    setp.eq.u32 %p, %r2, 0;
    @%p bra ONE;
    sub.u32 %r3, %r2, 1;
    {{
    .param .b32 x; .param .b32 y; .param .b32 z;
    st.param.b32 [x], %r1;
    st.param.b32 [y], %r3;
    call.uni (z), power, (x, y);
    ld.param.b32 %r4, [z];
    }}
    mul.lo.u32 %r5, %r4, %r1;
    st.param.b32 [result], %r5;
    ret;
ONE:
    mov.u32 %r5, 1;
    st.param.b32 [result], %r5;
    ret;
}}
.func (.reg .u32 %sum) add3(.reg .u32 %a, .reg .u32 %b, .reg .u32 %c) {{
    add.u32 %sum, %a, %b;
    add.u32 %sum, %sum, %c;
}}
.visible .entry k(.param .u64 out) {{
    .reg .b32 %r<6>; .reg .b64 %rd<4>;
    mov.u32 %r1, %tid.x;
    {{
    .param .b32 x; .param .b32 y; .param .b32 z;
    st.param.b32 [x], 3;
    st.param.b32 [y], %r1;
    call (z), power, (x, y);
    ld.param.b32 %r2, [z];
    }}
    call (%r3), add3, (%r2, %r1, 1000);
    ld.param.u64 %rd1, [out];
    mad.wide.u32 %rd2, %r1, 4, %rd1;
    st.global.u32 [%rd2], %r3;
    ret;
}}"
    );
    let module = module(&text);
    let mut device = Device::new();
    let out = device.alloc(4 * 12).unwrap();
    device.launch(&module, "k", Grid::linear(1, 12), &[Arg::U64(out)]).unwrap();
    let bytes = device.download(out, 48).unwrap();
    let found: Vec<u32> = crate::common::from_bytes(&bytes, 4).into_iter().map(|v| v as u32).collect();
    assert_eq!(found, (0..12).map(|i| 3u32.pow(i) + i + 1000).collect::<Vec<u32>>());
}

#[test]
fn special_registers() {
    let text = format!(
        "{HEADER}.visible .entry k(.param .u64 in, .param .u64 out) {{
    .reg .b32 %r<12>; .reg .b64 %rd<4>;
    mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %ntid.x; mov.u32 %r4, %ntid.y;
    mov.u32 %r5, %ctaid.x; mov.u32 %r6, %ctaid.y; mov.u32 %r7, %nctaid.x;
    mad.lo.u32 %r8, %r2, %r3, %r1;
    mad.lo.u32 %r9, %r6, %r7, %r5;
    mul.lo.u32 %r10, %r3, %r4;
    mad.lo.u32 %r8, %r9, %r10, %r8;
    mov.u32 %r9, %laneid; mov.u32 %r10, %warpid; mov.u32 %r11, %lanemask_lt;
    popc.b32 %r11, %r11;
    sub.u32 %r11, %r11, %r9;
    mad.lo.u32 %r9, %r10, WARP_SZ, %r9;
    add.u32 %r9, %r9, %r11;
    ld.param.u64 %rd1, [out];
    mad.wide.u32 %rd2, %r8, 4, %rd1;
    st.global.u32 [%rd2], %r9;
    ret;
}}"
    );
    let grid = Grid { blocks: [3, 2, 1], threads: [8, 6, 1], dynamic_shared: 0 };
    let (out, _) = run_words(&text, grid, &[0], 288);
    assert!(out.iter().enumerate().all(|(i, &v)| v as usize == i % 48));
}
