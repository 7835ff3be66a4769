//! Small kernels of the kind that compilers emit.

use lehr_ptx_sim::{Arg, Device, Grid};

use crate::common::{HEADER, kernel, map, module, run_words};

#[test]
fn adds_vectors_with_a_tail() {
    let text = format!(
        "{HEADER}
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n) {{
    .reg .pred %p1;
    .reg .b32 %r<6>;
    .reg .f32 %f<4>;
    .reg .b64 %rd<12>;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [b];
    ld.param.u64 %rd3, [c];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra $L__BB0_2;
    cvta.to.global.u64 %rd4, %rd1;
    cvta.to.global.u64 %rd5, %rd2;
    cvta.to.global.u64 %rd6, %rd3;
    mul.wide.u32 %rd7, %r5, 4;
    add.s64 %rd8, %rd4, %rd7;
    add.s64 %rd9, %rd5, %rd7;
    add.s64 %rd10, %rd6, %rd7;
    ld.global.nc.f32 %f1, [%rd8];
    ld.global.nc.f32 %f2, [%rd9];
    add.rn.f32 %f3, %f1, %f2;
    st.global.f32 [%rd10], %f3;
$L__BB0_2:
    ret;
}}"
    );
    let module = module(&text);
    let a: Vec<f32> = (0..300).map(|i| i as f32 * 0.5).collect();
    let b: Vec<f32> = (0..300).map(|i| 7.0 - i as f32).collect();
    let mut device = Device::new();
    let (x, y) = (device.put_f32(&a).unwrap(), device.put_f32(&b).unwrap());
    let z = device.alloc(1200).unwrap();
    let args = [Arg::U64(x), Arg::U64(y), Arg::U64(z), Arg::U32(300)];
    let stats = device.launch(&module, "add", Grid::linear(3, 128), &args).unwrap();
    let sums: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    assert_eq!(device.get_f32(z, 300).unwrap(), sums);
    assert_eq!(stats.global.excess(), 0);
    assert_eq!(stats.divergent_branches, 1, "one warp has threads on both sides of the end");
}

#[test]
fn reduces_by_shuffles_and_shared_memory() {
    let body = "
    shl.b32 %r1, %id, 2;
    cvt.u64.u32 %rd1, %r1;
    add.s64 %rd1, %rd1, %in;
    ld.global.f32 %f1, [%rd1];
    shfl.sync.bfly.b32 %f2, %f1, 16, 31, -1;
    add.f32 %f1, %f1, %f2;
    shfl.sync.bfly.b32 %f2, %f1, 8, 31, -1;
    add.f32 %f1, %f1, %f2;
    shfl.sync.bfly.b32 %f2, %f1, 4, 31, -1;
    add.f32 %f1, %f1, %f2;
    shfl.sync.bfly.b32 %f2, %f1, 2, 31, -1;
    add.f32 %f1, %f1, %f2;
    shfl.sync.bfly.b32 %f2, %f1, 1, 31, -1;
    add.f32 %f1, %f1, %f2;
    and.b32 %r2, %id, 31;
    setp.ne.s32 %p1, %r2, 0;
    @%p1 bra SKIP;
    shr.u32 %r3, %id, 5;
    shl.b32 %r3, %r3, 2;
    mov.u32 %r4, part;
    add.u32 %r4, %r4, %r3;
    st.shared.f32 [%r4], %f1;
SKIP:
    bar.sync 0;
    setp.ne.s32 %p1, %id, 0;
    @%p1 bra DONE;
    ld.shared.v4.f32 {%f3, %f4, %f5, %f6}, [part];
    add.f32 %f3, %f3, %f4;
    add.f32 %f5, %f5, %f6;
    add.f32 %f3, %f3, %f5;
    st.global.f32 [%out], %f3;
DONE:";
    let text = kernel(".shared .align 16 .f32 part[4];", body);
    let input: Vec<u32> = (0..128).map(|i| (i as f32).to_bits()).collect();
    let (out, stats) = run_words(&text, Grid::linear(1, 128), &input, 1);
    assert_eq!(f32::from_bits(out[0]), 8128.0);
    assert_eq!(stats.barriers, 1);
}

#[test]
fn maps_rows() {
    let rows: Vec<Vec<u64>> = (0..100).map(|i| vec![i, 3 * i]).collect();
    let out = map(&[4, 4], 4, "add.u32 %d, %a, %b;", &rows);
    assert_eq!(out, (0..100).map(|i| 4 * i).collect::<Vec<u64>>());
}
