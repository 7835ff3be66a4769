//! The checks of what a call passes: counts, dtypes, shapes, sizes, alignment. Data is never looked at, so it may lie anywhere.

use super::abi::{LehrTensor, TensorSpec, dtype_info, status};
use super::text::Text;

/// Checks one side of a call and stores the data pointers where compiled code finds them.
///
/// # Safety
/// `given` is null or has so many tensors, `wanted` has so many specifications, `pointers` has room for those.
pub(super) unsafe fn check_all(
    text: &mut Text,
    one: &str,
    many: &str,
    given: (*const LehrTensor, u32),
    wanted: (*const TensorSpec, u32),
    pointers: *mut *mut u8,
) -> Result<(), i32> {
    if given.1 != wanted.1 {
        text.str("the call has ").u64(given.1 as u64).byte(b' ').str(if given.1 == 1 { one } else { many });
        text.str(", the model has ").u64(wanted.1 as u64);
        return Err(status::BAD_COUNT);
    }
    if given.0.is_null() && given.1 > 0 {
        text.str("the array of ").str(many).str(" is null");
        return Err(status::NULL);
    }
    for index in 0..given.1 as usize {
        // SAFETY: the counts agree, and `index` is below them.
        unsafe {
            let (tensor, spec) = (&*given.0.add(index), &*wanted.0.add(index));
            let code = check_one(text, (one, index), tensor, spec);
            if code != status::OK {
                return Err(code);
            }
            pointers.add(index).write(tensor.data.cast());
        }
    }
    Ok(())
}

/// # Safety
/// `spec` is of a valid model; `tensor.dims` is null or has `tensor.rank` numbers.
unsafe fn check_one(text: &mut Text, which: (&str, usize), tensor: &LehrTensor, spec: &TensorSpec) -> i32 {
    // SAFETY: names are zero-terminated in a valid model.
    let about = |text: &mut Text| unsafe {
        text.str(which.0).byte(b' ').u64(which.1 as u64).str(" '").c_str(spec.name).str("': ");
    };
    let (needed, element) = dtype_info(spec.dtype).unwrap_or(("a dtype that this runtime does not know", 1));
    if tensor.dtype != spec.dtype {
        about(text);
        match dtype_info(tensor.dtype) {
            Some((name, _)) => text.str("dtype is ").str(name),
            None => text.str("dtype is the unknown code ").u64(tensor.dtype as u64),
        };
        text.str(", the model needs ").str(needed);
        return status::BAD_DTYPE;
    }
    if tensor.rank != spec.rank {
        about(text);
        text.str("rank is ").u64(tensor.rank as u64).str(", the model needs ").u64(spec.rank as u64);
        return status::BAD_SHAPE;
    }
    if tensor.dims.is_null() && tensor.rank > 0 {
        about(text);
        text.str("dims is null");
        return status::NULL;
    }
    for axis in 0..tensor.rank as usize {
        // SAFETY: both have `rank` dimensions.
        if unsafe { *tensor.dims.add(axis) != *spec.dims.add(axis) } {
            about(text);
            // SAFETY: as above.
            unsafe {
                text.str("dims are ").dims(tensor.dims, tensor.rank);
                text.str(", the model needs ").dims(spec.dims, spec.rank);
            }
            return status::BAD_SHAPE;
        }
    }
    if tensor.bytes != spec.bytes {
        about(text);
        text.str("size is ").u64(tensor.bytes).str(" bytes, the model needs ").u64(spec.bytes);
        return status::BAD_SIZE;
    }
    if tensor.data.is_null() && spec.bytes > 0 {
        about(text);
        text.str("data is null");
        return status::NULL;
    }
    // Element sizes are powers of two.
    if tensor.data.addr() as u64 & element.wrapping_sub(1) != 0 {
        about(text);
        text.str("data is not aligned to its element of ").u64(element).str(" bytes");
        return status::MISALIGNED;
    }
    status::OK
}
