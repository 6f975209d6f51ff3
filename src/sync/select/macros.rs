//! `select!`, in crossbeam's grammar: each arm is added to a `Select`, and the chosen one
//! completed.

/// Waits for the first of several operations and does it.
///
/// ```text
/// select! {
///     recv(receiver) -> item => …,            // item: Result<T, RecvError>
///     send(sender, item) -> sent => …,        // sent: Result<(), SendError<T>>
///     join(handle) -> result => …,            // result: Result<T, JoinError>
///     wait(event) => …,                       // when it is set
///     accept(listener) -> accepted => …,      // accepted: io::Result<(Stream, Address)>
///     readable(socket) => …,                  // when a read would not block
///     writable(socket) => …,                  // when a write would not block
///     default => …,                           // when none can be done at once
///     default(timeout) => …,                  // or when none could be for so long
/// }
/// ```
///
/// It has crossbeam's grammar and meaning. If several operations can be done at once, one of them
/// is chosen at random; with [`select_biased!`](crate::select_biased) it is the first. A receive
/// from a channel without senders can be done, and so can a send to a channel without receivers:
/// both fail. The item of a send is made when that send has been chosen. A receiver may be
/// one of the clock: [`after`](crate::sync::channel::after), [`tick`](crate::sync::channel::tick),
/// [`never`](crate::sync::channel::never). `join` takes a [`JoinHandle`](crate::JoinHandle), which
/// is dropped when another arm is chosen, or a `&mut JoinHandle`, which can be joined afterwards.
/// `wait` takes an [`Event`](crate::sync::Event), and leaves it set. For any number of arms there
/// is [`Select`](crate::sync::select::Select).
///
/// `readable` and `writable` take a socket, a pipe or a [`Pollable`](crate::io::Pollable), and move
/// no bytes. Another coroutine may do so first, and then the read or write of the arm waits:
/// `try_read` and `try_write` do not. `accept` takes a listener of [`net`](crate::net). The
/// time-outs of sockets do not count here.
///
/// # Panics
///
/// When the kernel refuses to watch a socket.
///
/// There may be one `default` or `default(timeout)`, at any place. It is chosen only if there was a
/// moment at which none of the operations could be done. A receive may be chosen that meets a
/// `select!` which is still making its item. It then waits for that item, and for another one if
/// the making panics: with `default(timeout)` until the time is over, otherwise however long this
/// takes.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled while it waits; no operation has been done then. With a
/// `default` it waits only for an item that is being made, but may let others run first, and may
/// unwind then.
///
/// ```
/// use std::time::Duration;
/// use plainsong::select;
/// use plainsong::sync::channel::bounded;
///
/// plainsong::run(|| {
///     let (sender, receiver) = bounded(1);
///     for _ in 0..2 {
///         select! {
///             send(sender, "one") -> sent => sent.unwrap(),
///             recv(receiver) -> item => assert_eq!(item, Ok("one")),
///         }
///     }
///     let worker = plainsong::spawn(|| 6 * 7);
///     select! {
///         recv(receiver) -> _ => unreachable!("it is empty"),
///         join(worker) -> answer => assert_eq!(answer.unwrap(), 42),
///         default(Duration::from_secs(3600)) => unreachable!("it takes no time"),
///     }
/// });
/// ```
#[macro_export]
macro_rules! select {
    ($($arms:tt)*) => {
        $crate::__select!(@arms ($crate::sync::select::Select::new()) [] [] $($arms)*)
    };
}

/// [`select!`](crate::select), with the first operation chosen of those that can be done.
///
/// ```
/// use plainsong::select_biased;
/// use plainsong::sync::channel::unbounded;
///
/// let (one, first) = unbounded();
/// let (two, second) = unbounded();
/// one.send(1).unwrap();
/// two.send(2).unwrap();
/// let item = select_biased! {
///     recv(first) -> item => item,
///     recv(second) -> item => item,
/// };
/// assert_eq!(item, Ok(1));
/// ```
#[macro_export]
macro_rules! select_biased {
    ($($arms:tt)*) => {
        $crate::__select!(@arms ($crate::sync::select::Select::new_biased()) [] [] $($arms)*)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    // ---- one arm after the other is cut off, first its head, then its body ----

    (@arms $new:tt $arms:tt $default:tt recv $args:tt -> $result:pat => $($rest:tt)*) => {
        $crate::__select!(@body $new $arms $default (recv $args ($result)) $($rest)*)
    };
    (@arms $new:tt $arms:tt $default:tt send $args:tt -> $result:pat => $($rest:tt)*) => {
        $crate::__select!(@body $new $arms $default (send $args ($result)) $($rest)*)
    };
    (@arms $new:tt $arms:tt $default:tt join $args:tt -> $result:pat => $($rest:tt)*) => {
        $crate::__select!(@body $new $arms $default (join $args ($result)) $($rest)*)
    };
    (@arms $new:tt $arms:tt $default:tt wait $args:tt => $($rest:tt)*) => {
        $crate::__select!(@body $new $arms $default (wait $args (())) $($rest)*)
    };
    (@arms $new:tt $arms:tt $default:tt accept $args:tt -> $result:pat => $($rest:tt)*) => {
        $crate::__select!(@body $new $arms $default (accept $args ($result)) $($rest)*)
    };
    (@arms $new:tt $arms:tt $default:tt readable $args:tt => $($rest:tt)*) => {
        $crate::__select!(@body $new $arms $default (readable $args (())) $($rest)*)
    };
    (@arms $new:tt $arms:tt $default:tt writable $args:tt => $($rest:tt)*) => {
        $crate::__select!(@body $new $arms $default (writable $args (())) $($rest)*)
    };
    (@arms $new:tt $arms:tt [] default => $($rest:tt)*) => {
        $crate::__select!(@body $new $arms [] (default ()) $($rest)*)
    };
    (@arms $new:tt $arms:tt [] default $timeout:tt => $($rest:tt)*) => {
        $crate::__select!(@body $new $arms [] (default $timeout) $($rest)*)
    };
    (@arms ($new:expr) $arms:tt $default:tt) => {{
        #[allow(unused_mut)]
        let mut select = $new;
        $crate::__select!(@add select $arms [] $default)
    }};
    (@arms $new:tt $arms:tt [$($default:tt)+] default $($rest:tt)*) => {
        ::core::compile_error!("`select!` has two arms called `default`: keep one")
    };
    (@arms $new:tt $arms:tt $default:tt $($rest:tt)+) => {
        ::core::compile_error!(::core::concat!(
            "an arm of `select!` is `recv(receiver) -> item => …`, `send(sender, item) -> sent => …`, ",
            "`join(handle) -> result => …`, `wait(event) => …`, ",
            "`accept(listener) -> accepted => …`, `readable(socket) => …`, `writable(socket) => …`, ",
            "`default => …` or `default(timeout) => …`, ",
            "not `",
            ::core::stringify!($($rest)+), "`"
        ))
    };

    (@body $new:tt $arms:tt $default:tt $head:tt $body:block, $($rest:tt)*) => {
        $crate::__select!(@push $new $arms $default $head ($body) $($rest)*)
    };
    (@body $new:tt $arms:tt $default:tt $head:tt $body:block $($rest:tt)*) => {
        $crate::__select!(@push $new $arms $default $head ($body) $($rest)*)
    };
    (@body $new:tt $arms:tt $default:tt $head:tt $body:expr, $($rest:tt)*) => {
        $crate::__select!(@push $new $arms $default $head ($body) $($rest)*)
    };
    (@body $new:tt $arms:tt $default:tt $head:tt $body:expr) => {
        $crate::__select!(@push $new $arms $default $head ($body))
    };

    (@push $new:tt $arms:tt [] (default $timeout:tt) $body:tt $($rest:tt)*) => {
        $crate::__select!(@arms $new $arms [$timeout $body] $($rest)*)
    };
    (@push $new:tt [$($arms:tt)*] $default:tt ($($head:tt)*) $body:tt $($rest:tt)*) => {
        $crate::__select!(@arms $new [$($arms)* ($($head)* $body)] $default $($rest)*)
    };

    // ---- each is added; its parts and its index get names, new ones at each step ----

    (@add $select:ident [(recv ($receiver:expr $(,)?) $result:tt $body:tt) $($arms:tt)*]
        [$($done:tt)*] $default:tt) => {
        match &$receiver {
            receiver => {
                let receiver: &$crate::sync::channel::Receiver<_> = receiver;
                let index = $select.recv(receiver);
                $crate::__select!(@add $select [$($arms)*]
                    [$($done)* (index (recv receiver) $result $body)] $default)
            }
        }
    };
    (@add $select:ident [(send ($sender:expr, $item:expr $(,)?) $result:tt $body:tt) $($arms:tt)*]
        [$($done:tt)*] $default:tt) => {
        match &$sender {
            sender => {
                let sender: &$crate::sync::channel::Sender<_> = sender;
                let index = $select.send(sender);
                $crate::__select!(@add $select [$($arms)*]
                    [$($done)* (index (send sender $item) $result $body)] $default)
            }
        }
    };
    (@add $select:ident [(join ($handle:expr $(,)?) $result:tt $body:tt) $($arms:tt)*]
        [$($done:tt)*] $default:tt) => {
        match $handle {
            mut handle => {
                let index = $select.join($crate::sync::select::Joined::handle(&mut handle));
                $crate::__select!(@add $select [$($arms)*]
                    [$($done)* (index (join handle) $result $body)] $default)
            }
        }
    };
    (@add $select:ident [(wait ($event:expr $(,)?) $result:tt $body:tt) $($arms:tt)*]
        [$($done:tt)*] $default:tt) => {
        match &$event {
            event => {
                let event: &$crate::sync::Event = event;
                let index = $select.wait(event);
                $crate::__select!(@add $select [$($arms)*]
                    [$($done)* (index (wait) $result $body)] $default)
            }
        }
    };
    (@add $select:ident [(accept ($listener:expr $(,)?) $result:tt $body:tt) $($arms:tt)*]
        [$($done:tt)*] $default:tt) => {
        match $crate::sync::select::Accepting::new(&$listener) {
            accepting => {
                let index = $select.accept(&accepting);
                $crate::__select!(@add $select [$($arms)*]
                    [$($done)* (index (accept accepting) $result $body)] $default)
            }
        }
    };
    (@add $select:ident [(readable ($socket:expr $(,)?) $result:tt $body:tt) $($arms:tt)*]
        [$($done:tt)*] $default:tt) => {
        match &$socket {
            socket => {
                let index = $select.readable(socket);
                $crate::__select!(@add $select [$($arms)*]
                    [$($done)* (index (wait) $result $body)] $default)
            }
        }
    };
    (@add $select:ident [(writable ($socket:expr $(,)?) $result:tt $body:tt) $($arms:tt)*]
        [$($done:tt)*] $default:tt) => {
        match &$socket {
            socket => {
                let index = $select.writable(socket);
                $crate::__select!(@add $select [$($arms)*]
                    [$($done)* (index (wait) $result $body)] $default)
            }
        }
    };

    (@add $select:ident [] $done:tt []) => {{
        let chosen = $select.select();
        $crate::__select!(@finish chosen $done)
    }};
    (@add $select:ident [] $done:tt [() $body:tt]) => {
        $crate::__select!(@or ($select.try_select()) $done $body)
    };
    (@add $select:ident [] $done:tt [($timeout:expr $(,)?) $body:tt]) => {
        $crate::__select!(@or ($select.select_timeout($timeout)) $done $body)
    };
    // The chosen operation is moved, whole, in each branch: a `match` would keep its parts
    // borrowed.
    (@or ($chosen:expr) [$($done:tt)*] $body:tt) => {{
        let chosen = $crate::sync::select::SelectedOperation::or_default($chosen);
        let index = $crate::sync::select::SelectedOperation::DEFAULT;
        $crate::__select!(@finish chosen [$($done)* (index (default) (()) $body)])
    }};

    // ---- the chosen operation is completed ----

    (@finish $chosen:ident [($index:ident $how:tt ($result:pat) ($body:expr)) $($done:tt)*]) => {
        if $chosen.index() == $index {
            let $result = $crate::__select!(@complete $chosen $how);
            $body
        } else {
            $crate::__select!(@finish $chosen [$($done)*])
        }
    };
    (@finish $chosen:ident []) => {{
        ::core::mem::drop($chosen);
        ::core::unreachable!("one of the arms was chosen")
    }};

    (@complete $chosen:ident (recv $receiver:ident)) => {
        $chosen.recv($receiver)
    };
    (@complete $chosen:ident (send $sender:ident $item:expr)) => {
        {
            // Made first: should that panic, the operation is released.
            let item = $item;
            $chosen.send($sender, item)
        }
    };
    (@complete $chosen:ident (default)) => {
        $chosen.done()
    };
    (@complete $chosen:ident (wait)) => {
        $chosen.done()
    };
    (@complete $chosen:ident (accept $accepting:ident)) => {{
        $chosen.done();
        $accepting.finish()
    }};
    (@complete $chosen:ident (join $handle:ident)) => {{
        $chosen.done();
        $crate::sync::select::Joined::finish($handle)
    }};
}
