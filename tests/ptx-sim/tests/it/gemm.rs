//! Matrix products as compilers emit them: shared memory, asynchronous copies, tensor cores.

use lehr_ptx_sim::{FaultKind, Grid, MemoryKind, Options};

use crate::common::{assert_fault, kernel, run_words, try_words};

fn values(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as f32 / 32768.0 - 1.0
        })
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// C = A * B of 16x16 matrices by 256 threads, the tiles copied asynchronously; `WAIT` and `BAR` can be left out.
fn tiled(wait: &str, bar: &str) -> String {
    let body = format!(
        "
    shl.b32 %r1, %id, 2;
    cvt.u64.u32 %rd1, %r1;
    add.s64 %rd2, %in, %rd1;
    mov.u32 %r2, ta;
    add.u32 %r2, %r2, %r1;
    mov.u32 %r3, tb;
    add.u32 %r3, %r3, %r1;
    cp.async.ca.shared.global [%r2], [%rd2], 4;
    cp.async.ca.shared.global [%r3], [%rd2+1024], 4;
    cp.async.commit_group;
    {wait}
    {bar}
    shr.u32 %r4, %id, 4;
    and.b32 %r5, %id, 15;
    shl.b32 %r4, %r4, 6;
    mov.u32 %r6, ta;
    add.u32 %r4, %r4, %r6;
    shl.b32 %r5, %r5, 2;
    mov.u32 %r6, tb;
    add.u32 %r5, %r5, %r6;
    mov.f32 %f1, 0f00000000;
    mov.u32 %r7, 0;
LOOP:
    ld.shared.f32 %f2, [%r4];
    ld.shared.f32 %f3, [%r5];
    fma.rn.f32 %f1, %f2, %f3, %f1;
    add.u32 %r4, %r4, 4;
    add.u32 %r5, %r5, 64;
    add.u32 %r7, %r7, 1;
    setp.lt.u32 %p1, %r7, 16;
    @%p1 bra LOOP;
    add.s64 %rd3, %out, %rd1;
    st.global.f32 [%rd3], %f1;"
    );
    kernel(".shared .align 16 .b8 ta[1024];\n.shared .align 16 .b8 tb[1024];", &body)
}

#[test]
fn multiplies_tiles() {
    let (a, b) = (values(1, 256), values(2, 256));
    let input = bits(&[a.clone(), b.clone()].concat());
    let text = tiled("cp.async.wait_group 0;", "bar.sync 0;");
    let (out, stats) = run_words(&text, Grid::linear(1, 256), &input, 256);
    for i in 0..16 {
        for j in 0..16 {
            let expected = (0..16).fold(0f32, |sum, k| a[i * 16 + k].mul_add(b[k * 16 + j], sum));
            assert_eq!(f32::from_bits(out[i * 16 + j]), expected);
        }
    }
    let load_b = 1 + text.lines().position(|l| l.contains("ld.shared.f32 %f3")).unwrap() as u32;
    let line = stats.line(load_b, MemoryKind::Shared);
    assert_eq!((line.requests, line.excess()), (8 * 16, 0));
    assert_eq!(stats.global.efficiency(), 1.0);
}

#[test]
fn forgotten_wait_and_barrier() {
    let input = bits(&values(1, 512));
    let run = |text: &str| try_words(text, Grid::linear(1, 256), &input, 256, Options::default());
    let fault = run(&tiled("", "bar.sync 0;")).unwrap_err();
    assert_fault(&fault, FaultKind::PendingCopy, "ld.shared.f32 %f2");
    let fault = run(&tiled("cp.async.wait_group 0;", "")).unwrap_err();
    assert!(matches!(fault.kind, FaultKind::Race | FaultKind::UninitialisedMemory | FaultKind::PendingCopy), "{fault}");
    let fault = run(&tiled("cp.async.wait_group 1;", "bar.sync 0;")).unwrap_err();
    assert_fault(&fault, FaultKind::PendingCopy, "ld.shared.f32 %f2");
}
