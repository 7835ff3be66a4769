//! Data movement, indexing, and results made of numbers.

use crate::harness::{ALL, NUMBERS, check, check_types, fault};

#[test]
fn joining_and_cutting() {
    check_types(&ALL, "%x: T[2,3,4], %y: T[2,1,4], %e: T[2,0,4]", "%z = concat %x, %e, %y, %x {axis=1}\nreturn %z");
    check("%x: f32[3,5]", "%n = neg %x\n%z = concat %x, %n {axis=0}\n%w = concat %z, %z {axis=1}\nreturn %w");
    check_types(&ALL, "%x: T[4,5,6]", "%y = slice %x {starts=[0, 4, 5], lens=[4, 3, 2], steps=[1, -2, -3]}\nreturn %y");
    check("%x: f32[4,5]", "%y = slice %x {starts=[1, 9], lens=[3, 0], steps=[1, 1]}\nreturn %y");
    check("%x: f32[]", "%y = slice %x {starts=[], lens=[], steps=[]}\nreturn %y");
}

#[test]
fn padding() {
    for mode in ["constant", "edge", "reflect", "wrap"] {
        check_types(
            &ALL,
            "%x: T[2,3,4]",
            &format!("%y = pad %x {{before=[0, 1, 2], after=[1, 0, 2], mode={mode}}}\nreturn %y"),
        );
        check("%x: f32[3,4]", &format!("%y = pad %x {{before=[7, -1], after=[5, 9], mode={mode}}}\nreturn %y"));
        check("%x: f32[3,1]", &format!("%y = pad %x {{before=[-1, 2], after=[-1, 2], mode={mode}}}\nreturn %y"));
        check("%x: f32[]", &format!("%y = pad %x {{before=[], after=[], mode={mode}}}\nreturn %y"));
    }
    check_types(&ALL, "%x: T[3,4], %v: T[]", "%y = pad %x, %v {before=[1, -2], after=[-2, 3]}\nreturn %y");
    check("%x: f32[0,4], %v: f32[]", "%y = pad %x, %v {before=[1, 1], after=[1, 1]}\nreturn %y");
}

#[test]
fn reordering() {
    check_types(
        &ALL,
        "%x: T[2,3,4,5]",
        "%y = transpose %x {perm=[0, 2, 3, 1]}\n%z = transpose %y {perm=[3, 2, 1, 0]}\nreturn %y, %z",
    );
    check("%x: f32[]", "%y = transpose %x {perm=[]}\nreturn %y");
    check("%x: f32[4,6]", "%t = transpose %x {perm=[1, 0]}\n%y = reshape %t {shape=[3, 8]}\nreturn %y");
    check_types(
        &ALL,
        "%x: T[3,1], %s: T[]",
        "%y = expand %x {shape=[2, 3, 70]}\n%z = expand %s {shape=[2, 2]}\nreturn %y, %z",
    );
    check_types(&ALL, "%x: T[2,3]", "%y = tile %x {repeats=[3, 2]}\nreturn %y");
    check("%x: f32[2,3]", "%y = tile %x {repeats=[0, 2]}\n%z = tile %x {repeats=[1, 1]}\nreturn %y, %z");
    for attrs in ["upper=true", "upper=false", "upper=true, k=2", "upper=false, k=-3", "k=-9223372036854775808"] {
        check_types(&ALL, "%x: T[2,4,5]", &format!("%y = trilu %x {{{attrs}}}\nreturn %y"));
    }
    check_types(
        &ALL,
        "%x: T[2,8,3,5]",
        "%y = depth_to_space %x {block=2}\n%z = depth_to_space %x {block=2, order=crd}\n%b = space_to_depth %y {block=2}\nreturn %y, %z, %b",
    );
}

#[test]
fn gathering() {
    check_types(
        &ALL,
        "%x: T[3,4,5]",
        "%i = const i64[2,3] [0, -1, 2, 1, -3, 0]\n%y = gather %x, %i {axis=0}\n%z = gather %x, %i {axis=2}\nreturn %y, %z",
    );
    check("%x: f32[3,4]", "%i = const i32[] [-2]\n%y = gather %x, %i {axis=1}\n%r = relu %y\nreturn %r");
    check("%x: f32[3,0]", "%i = const i64[2] [1, 2]\n%y = gather %x, %i {axis=0}\nreturn %y");
    check_types(
        &ALL,
        "%x: T[2,3]",
        "%i = const i32[1,4] [0, -1, 2, 1]\n%y = gather_elements %x, %i {axis=1}\nreturn %y",
    );
    check_types(
        &ALL,
        "%x: T[2,3,4]",
        "%i = const i64[2,2] [1, 2, 0, -1]\n%y = gather_nd %x, %i\n%j = const i64[2,1] [2, -3]\n%z = gather_nd %x, %j {batch_dims=1}\nreturn %y, %z",
    );
}

#[test]
fn scattering() {
    for reduction in ["none", "add", "mul", "max", "min"] {
        check_types(
            &ALL,
            "%x: T[3,4], %u: T[2,3]",
            &format!(
                "%i = const i64[2,3] [0, -1, 2, 2, 1, 0]\n%y = scatter_elements %x, %i, %u {{axis=0, reduction={reduction}}}\nreturn %y"
            ),
        );
        check_types(
            &ALL,
            "%x: T[4,5], %u: T[3,5]",
            &format!("%i = const i64[3,1] [1, -1, 1]\n%y = scatter_nd %x, %i, %u {{reduction={reduction}}}\nreturn %y"),
        );
        check(
            "%x: f32[4], %u: f32[2]",
            &format!(
                "%i = const i64[2,1] [1, 1]\n%y = scatter_nd %x, %i, %u {{reduction={reduction}}}\n%r = neg %y\nreturn %r"
            ),
        );
    }
    check("%x: f32[4], %u: f32[0]", "%i = const i64[0,1] []\n%y = scatter_nd %x, %i, %u\nreturn %y");
}

#[test]
fn indices_out_of_range() {
    for index in ["3", "-4", "9223372036854775807", "-9223372036854775808"] {
        let text =
            fault("%x: f32[3,4]", &format!("%i = const i64[1] [{index}]\n%y = gather %x, %i {{axis=0}}\nreturn %y"));
        assert!(text.contains("an index is outside an axis of 3 elements"), "{text}");
        fault(
            "%x: f32[3,4], %u: f32[1,4]",
            &format!("%i = const i64[1,1] [{index}]\n%y = scatter_nd %x, %i, %u\nreturn %y"),
        );
        fault("%x: f32[3,4]", &format!("%i = const i64[1,1] [{index}]\n%y = gather_nd %x, %i\nreturn %y"));
        fault(
            "%x: f32[3,4]",
            &format!("%i = const i64[1,1] [{index}]\n%y = gather_elements %x, %i {{axis=0}}\nreturn %y"),
        );
    }
    fault("%x: f32[0,4]", "%i = const i64[1] [0]\n%y = gather %x, %i {axis=0}\nreturn %y");
}

#[test]
fn one_hots_and_sources() {
    check_types(
        &NUMBERS,
        "%i: T[2,3]",
        "%v = const f32[2] [0.5, 1.5]\n%y = one_hot %i, %v {depth=5, axis=1}\n%z = one_hot %i, %v {depth=9, axis=2}\nreturn %y, %z",
    );
    check_types(
        &ALL,
        "%v: T[2]",
        "%i = const f32[4] [1.7, -1.0, nan, 3e30]\n%y = one_hot %i, %v {depth=3, axis=0}\nreturn %y",
    );
    check(
        "%v: f32[2]",
        "%i = const u64[2] [18446744073709551615, 1]\n%y = one_hot %i, %v {depth=3, axis=0}\nreturn %y",
    );
    check_types(&NUMBERS, "%s: T[], %d: T[]", "%y = range %s, %d {len=101}\n%z = range %s, %d {len=0}\nreturn %y, %z");
    for t in ALL {
        check("%x: f32[1]", &format!("%y = eye {{dtype={t}, rows=3, cols=70, k=-1}}\nreturn %y"));
    }
    check(
        "%x: f32[2,3,5]",
        "%s = shape_of %x {end=3}\n%p = shape_of %x {start=1, end=2}\n%z = size_of %x\nreturn %s, %p, %z",
    );
}
