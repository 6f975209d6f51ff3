//! Sorting by a number. Each type that std sorts takes 15 KB of machine code in a debug build, so
//! only the swaps are compiled for each type.

/// Sorts by keys. Items with the same key keep their order.
pub(crate) fn sort_by_key<T>(items: &mut [T], key: impl Fn(&T) -> u64) {
    if items.len() < 2 {
        return;
    }
    let mut keys = Vec::with_capacity(items.len());
    for item in &*items {
        keys.push(key(item));
    }
    for (at, from) in swaps(&keys) {
        items.swap(at, from);
    }
}

/// The swaps that sort items with these keys.
fn swaps(keys: &[u64]) -> Vec<(usize, usize)> {
    if keys.is_sorted() {
        return Vec::new();
    }
    let mut order: Vec<_> = keys.iter().copied().zip(0..).collect();
    order.sort_unstable();
    // The places of the items after the swaps so far, and the items at the places.
    let mut places: Vec<usize> = (0..keys.len()).collect();
    let mut items = places.clone();
    let mut swaps = Vec::with_capacity(keys.len());
    for (at, &(_, item)) in order.iter().enumerate() {
        let (from, other) = (places[item], items[at]);
        (places[other], items[from]) = (from, other);
        swaps.push((at, from));
    }
    swaps
}

#[cfg(test)]
mod tests {
    use super::sort_by_key;

    #[test]
    fn sorts_as_std_does() {
        for (len, kinds) in [(0, 1), (1, 1), (2, 2), (7, 3), (1000, 1), (1000, 10), (1000, 10_000)]
        {
            let mut random = 7_u64;
            let mut draw = |place: usize| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((random >> 33) % kinds, place)
            };
            let mut items: Vec<_> = (0..len).map(&mut draw).collect();
            let mut sorted = items.clone();
            sorted.sort_by_key(|&(key, _)| key);
            sort_by_key(&mut items, |&(key, _)| key);
            assert_eq!(items, sorted);
        }
    }
}
