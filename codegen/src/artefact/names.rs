//! C identifiers from the free text of model and tensor names.

use std::collections::HashSet;

/// The keywords of C and C++ that a lower-case tensor name could be, and the header's own parameters.
const KEYWORDS: &str = " alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const \
    const_cast consteval constexpr constinit continue co_await co_return co_yield decltype default delete do double dynamic_cast else \
    enum explicit export extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr \
    operator or or_eq private protected public register reinterpret_cast requires restrict return short signed sizeof static \
    static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename union unsigned using \
    virtual void volatile wchar_t while xor xor_eq ws model stream ";

/// A name as a C identifier: other characters become `_`, and it neither starts with a digit nor is a keyword.
pub fn c_identifier(name: &str) -> String {
    let mut identifier: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let reserved = identifier.starts_with("lehr_") || KEYWORDS.contains(&format!(" {identifier} "));
    if identifier.is_empty() || identifier.starts_with(|c: char| c.is_ascii_digit() || c == '_') || reserved {
        identifier.insert_str(0, "t_");
    }
    identifier
}

/// Identifiers for several names in one scope: those that would repeat get `_2`, `_3`, ...
pub(super) fn unique_identifiers<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut taken = HashSet::new();
    names
        .map(|name| {
            let plain = c_identifier(name);
            let mut candidate = plain.clone();
            let mut number = 2;
            // Macros are upper case, so names that differ in case only would clash there.
            while !taken.insert(candidate.to_ascii_uppercase()) {
                candidate = format!("{plain}_{number}");
                number += 1;
            }
            candidate
        })
        .collect()
}
