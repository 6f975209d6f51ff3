//! Facts about many coroutines, in little memory.
//!
//! Most coroutines are like many others: spawned at the same place, and in the same wait, called at
//! the same place. So only the first of each kind is kept as it is. A coroutine is a row of bytes,
//! which says by how much its numbers differ from those of the first of its kind.

use std::collections::HashMap;
use std::fmt;
use std::iter;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Endpoint, Name};
use super::facts::{Facts, Frames, State};
use super::id::Id;
use super::scopes::CancelReason;
use super::subject::{Alternative, Count, Held, Object};

/// The numbers of a coroutine. Those that differ most often are first, but for the address of the
/// peer, which needs many.
type Words = [u64; HEAD + 2 * Name::WORDS];
const HEAD: usize = 21;
/// A number takes ten bytes at most. The kind and the mask come before the numbers.
const ROW_MAX: usize = 10 * (2 + size_of::<Words>() / size_of::<u64>());
/// As many bytes have room for each coroutine where none can be made.
const ROW_ROOM: usize = 128;
/// As many kinds have room there.
const KINDS_ROOM: usize = 4096;

/// Facts about coroutines.
#[derive(Clone, Default)]
pub(crate) struct Rows {
    bytes: Vec<u8>,
    len: usize,
    kinds: Vec<(Facts, Words)>,
    // The kinds by what their coroutines have in common.
    index: HashMap<[usize; 9], u32>,
    // These have numbers in the rows.
    names: Vec<Arc<str>>,
    reasons: Vec<CancelReason>,
    alternatives: Vec<Box<[Alternative]>>,
}

impl Rows {
    /// With room for this many coroutines.
    pub(crate) fn with_capacity(coroutines: usize) -> Self {
        let (kinds, bytes) = (coroutines.min(KINDS_ROOM), ROW_MAX * coroutines.min(1));
        Self {
            bytes: Vec::with_capacity(coroutines * ROW_ROOM + bytes),
            kinds: Vec::with_capacity(kinds),
            index: HashMap::with_capacity(kinds),
            names: Vec::with_capacity(coroutines),
            ..Self::default()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is room for any coroutine, but for the reason of its cancellation and the
    /// objects of a wait for several.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.capacity() - self.bytes.len() >= ROW_MAX
            && self.kinds.len() < self.kinds.capacity().min(self.index.capacity())
            && self.names.len() < self.names.capacity()
    }

    pub(crate) fn push(&mut self, mut facts: Facts) {
        let words = self.words(&mut facts);
        let next = self.kinds.len() as u32;
        let kind = *self.index.entry(key(&facts)).or_insert(next);
        if kind == next {
            self.kinds.push((facts, words));
        }
        let first = self.kinds[kind as usize].1;
        let differ = |(at, (one, other))| u64::from(one != other) << at;
        let mask = words.iter().zip(&first).enumerate().map(differ).sum();
        write(&mut self.bytes, kind.into());
        write(&mut self.bytes, mask);
        for (word, first) in words.iter().zip(&first).filter(|(word, first)| word != first) {
            let by = word.wrapping_sub(*first) as i64;
            // Small numbers of either sign become small ones without.
            write(&mut self.bytes, ((by << 1) ^ (by >> 63)) as u64);
        }
        self.len += 1;
    }

    /// Gives back what is only needed to add more.
    pub(crate) fn shrink(&mut self) {
        self.index = HashMap::new();
        self.bytes.shrink_to_fit();
        self.kinds.shrink_to_fit();
        self.names.shrink_to_fit();
    }

    /// All coroutines, and where they are.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, Facts)> {
        let mut next = 0;
        iter::from_fn(move || {
            let at = next;
            (at < self.bytes.len()).then(|| (at, self.read(&mut next)))
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Facts> {
        self.places().map(|(_, facts)| facts)
    }

    /// The coroutine at a place of [`places`](Self::places).
    pub(crate) fn get(&self, mut place: usize) -> Facts {
        self.read(&mut place)
    }

    pub(crate) fn retain(&mut self, mut wanted: impl FnMut(&Facts) -> bool) {
        let (mut bytes, mut at) = (Vec::new(), 0);
        self.len = 0;
        while at < self.bytes.len() {
            let start = at;
            if wanted(&self.read(&mut at)) {
                bytes.extend_from_slice(&self.bytes[start..at]);
                self.len += 1;
            }
        }
        self.bytes = bytes;
    }

    fn read(&self, at: &mut usize) -> Facts {
        let (kind, mask) = (read(&self.bytes, at), read(&self.bytes, at));
        let (first, mut words) = self.kinds[kind as usize].clone();
        for (number, word) in words.iter_mut().enumerate() {
            if mask >> number & 1 == 1 {
                let by = read(&self.bytes, at);
                *word = word.wrapping_add((by >> 1) ^ (by & 1).wrapping_neg());
            }
        }
        self.facts(first, words)
    }

    /// The numbers of a coroutine, which [`facts`](Self::facts) puts back. Takes its name and the
    /// like out of it.
    fn words(&mut self, facts: &mut Facts) -> Words {
        let name = number(&mut self.names, facts.name.take());
        let reason = number(&mut self.reasons, facts.reason.take());
        let (mut alternatives, mut since, mut left, mut detail) = (0, 0, 0, 0);
        let (mut of, mut len, mut identity, mut shared) = (0, 0, 0, [0; 2]);
        let (mut held, mut holder, mut readers) = (0, 0, 0);
        let (mut local, mut peer) = ([0; Name::WORDS], [0; Name::WORDS]);
        if let State::Parked(parked) = &mut facts.state {
            let several = std::mem::take(&mut parked.alternatives);
            alternatives =
                number(&mut self.alternatives, Some(several).filter(|it| !it.is_empty()));
            since = parked.since.as_millis() as u64;
            left = time(parked.left);
            detail = parked.why.detail().into();
            if let Some(subject) = &parked.subject {
                (len, of) = subject.count.map_or((0, 0), |it| (it.len as u64 + 1, size(it.of)));
                identity = subject.identity as u64;
                shared = subject.shared.map_or([0; 2], Object::to_words);
                let id = |id: Option<Id>| id.map_or(0, Id::get);
                (held, holder, readers) = match subject.holder {
                    Held::Unknown => (0, 0, 0),
                    Held::Thread => (1, 0, 0),
                    Held::Coroutine(one) => (2, one.get(), 0),
                    Held::Readers(count, last) => (3, id(last), count as u64),
                };
            }
            if let Some(Endpoint::Socket { local: one, peer: other, .. }) = &parked.endpoint {
                (local, peer) = (one.to_words(), other.to_words());
            }
        }
        let stack = &facts.stack;
        let head: [u64; HEAD] = [
            facts.id.get(),
            since,
            left,
            name,
            size(stack.used),
            stack.most as u64,
            detail,
            stack.top as u64,
            len,
            facts.parent.map_or(0, Id::get),
            identity,
            shared[0],
            shared[1],
            of,
            time(facts.deadline),
            held,
            holder,
            readers,
            facts.scopes as u64,
            reason,
            alternatives,
        ];
        let mut words = [0; size_of::<Words>() / size_of::<u64>()];
        let all = peer.into_iter().chain(head).chain(local);
        words.iter_mut().zip(all).for_each(|(word, value)| *word = value);
        words
    }

    /// The coroutine with these numbers, like the first of its kind in all else.
    fn facts(&self, first: Facts, words: Words) -> Facts {
        let mut facts = first;
        let (peer, rest) = words.split_at(Name::WORDS);
        let (head, local) = rest.split_at(HEAD);
        let &[
            id,
            since,
            left,
            name,
            used,
            most,
            detail,
            top,
            len,
            parent,
            identity,
            start,
            end,
            of,
            deadline,
            held,
            holder,
            readers,
            scopes,
            reason,
            alternatives,
        ] = head
        else {
            return facts;
        };
        let duration = |time: u64| time.checked_sub(1).map(Duration::from_nanos);
        let option = |size: u64| size.checked_sub(1).map(|it| it as usize);
        facts.id = Id::from_number(id).unwrap_or(facts.id);
        facts.name = option(name).map(|it| self.names[it].clone());
        facts.reason = option(reason).map(|it| self.reasons[it].clone());
        facts.parent = Id::from_number(parent);
        facts.scopes = scopes as usize;
        facts.deadline = duration(deadline);
        facts.stack.top = top as usize;
        facts.stack.used = option(used);
        facts.stack.most = most as usize;
        if let State::Parked(parked) = &mut facts.state {
            if let Some(several) = option(alternatives) {
                parked.alternatives = self.alternatives[several].clone();
            }
            parked.since = Duration::from_millis(since);
            parked.left = duration(left);
            parked.why = parked.why.with(detail as u32);
            if let Some(subject) = &mut parked.subject {
                subject.count = option(len).map(|len| Count { len, of: option(of) });
                subject.identity = identity as usize;
                subject.shared = Object::from_words([start, end]);
                subject.holder = match (held, Id::from_number(holder)) {
                    (1, _) => Held::Thread,
                    (2, Some(holder)) => Held::Coroutine(holder),
                    (3, last) => Held::Readers(readers as usize, last),
                    _ => Held::Unknown,
                };
            }
            if let Some(Endpoint::Socket { local: one, peer: other, .. }) = &mut parked.endpoint {
                (*one, *other) = (Name::from_words(local), Name::from_words(peer));
            }
        }
        facts
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The facts that are no numbers, and of which a program has few: equal for coroutines of a kind.
fn key(facts: &Facts) -> [usize; 9] {
    let (mut reason, mut created, mut waited_at, mut file) = (0, 0, 0, (0, 0));
    let state = match &facts.state {
        State::Running => 0,
        State::Ready { started } => 1 + usize::from(*started),
        State::Parked(parked) => {
            reason = ptr::from_ref(parked.why.reason()).addr();
            if let Some(subject) = &parked.subject {
                created = ptr::from_ref(subject.created).addr();
                waited_at = ptr::from_ref(subject.waited_at).addr();
            }
            let (state, text) = match parked.endpoint {
                None => (3, ""),
                Some(Endpoint::Other(kind)) => (4, kind),
                Some(Endpoint::Socket { protocol, listens, .. }) => {
                    (5 + usize::from(listens), protocol)
                }
            };
            file = (text.as_ptr().addr(), text.len());
            state
        }
    };
    let Frames(frame, count) = facts.frames;
    let state = state << 2 | usize::from(facts.scoped) << 1 | usize::from(facts.cancelled);
    let state = state << 32 | count as usize;
    let spawned = ptr::from_ref(facts.spawned).addr();
    [state, spawned, frame as usize, reason, created, waited_at, file.0, file.1, facts.stack.size]
}

/// Keeps a value. Returns its number, from 1, or 0 for none.
fn number<T>(all: &mut Vec<T>, value: Option<T>) -> u64 {
    let Some(value) = value else { return 0 };
    all.push(value);
    all.len() as u64
}

fn size(value: Option<usize>) -> u64 {
    value.map_or(0, |it| it as u64 + 1)
}

fn time(value: Option<Duration>) -> u64 {
    value.map_or(0, |it| (it.as_nanos() as u64).saturating_add(1))
}

/// Adds a number: seven bits to a byte, the lowest first. All but the last have the highest bit.
fn write(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read(bytes: &[u8], at: &mut usize) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return number;
        }
    }
}
