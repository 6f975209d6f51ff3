//! A borrowed value must outlive the coroutine that borrows it.

use std::cell::RefCell;

use plainsong::{Scope, ScopedJoinHandle, scope, spawn};

fn a_coroutine_may_outlive_its_caller() {
    let text = String::from("text");
    spawn(|| text.len()); //~ E0373
    let other = String::from("other");
    let borrowed = &other; //~ E0597
    spawn(move || borrowed.len());
    let third = String::from("third");
    plainsong::thread::spawn(|| third.len()); //~ E0373
    let fourth = String::from("fourth");
    plainsong::spawn_anywhere(|| fourth.len()); //~ E0373
    let fifth = String::from("fifth");
    let _ = plainsong::Builder::new().spawn(|| fifth.len()); //~ E0373
    let sixth = String::from("sixth");
    plainsong::time::after(std::time::Duration::ZERO, || drop(&sixth)); //~ E0373
}

fn nor_may_its_result_be_borrowed(text: &str) {
    spawn(move || text); //~ E0521
}

fn a_scope_does_not_lend_its_own_locals() {
    scope(|s| {
        let inner = String::from("inner");
        s.spawn(|| inner.len()); //~ E0373
    });
}

fn a_child_does_not_lend_to_its_siblings() {
    scope(|s| {
        s.spawn(|| {
            let inner = String::from("inner");
            s.spawn(|| inner.len()); //~ E0373
        });
    });
}

fn handles_do_not_leave_their_scope() {
    let mut kept = None;
    scope(|s| {
        kept = Some(s.spawn(|| 1)); //~ E0521
    });
    drop(kept);
}

fn a_scope_does_not_leave_itself() {
    let mut kept: Option<&Scope<'_, '_>> = None;
    scope(|s| kept = Some(s)); //~ E0521
    drop(kept);
}

fn nor_is_a_handle_the_value_of_its_scope() {
    scope(|s| s.spawn(|| 1)); //~ -
}

fn a_detached_coroutine_does_not_have_the_scope() {
    scope(|s| {
        spawn(move || { //~ E0521
            s.spawn(|| ());
        });
    });
}

fn what_a_child_changes_is_its_own() {
    let mut count = 0;
    scope(|s| {
        s.spawn(|| count += 1);
        s.spawn(|| count += 1); //~ E0499
    });
    let mut other = 0;
    scope(|s| {
        let child = s.spawn(|| other += 1);
        other += 1; //~ E0506
        child.join().unwrap();
    });
    let mut third = 0;
    scope(|s| {
        s.spawn(|| third += 1);
        drop(third); //~ E0503
    });
}

fn what_a_child_reads_is_not_changed() {
    let mut text = String::from("text");
    scope(|s| {
        s.spawn(|| text.len());
        text.clear(); //~ E0502
    });
}

fn a_child_result_may_not_outlive_what_it_borrows() {
    let longest = {
        let text = String::from("text");
        scope(|s| s.spawn(|| text.as_str()).join().unwrap()) //~ E0597
    };
    drop(longest);
}

fn a_scope_does_not_get_a_longer_environment<'scope, 'env>(
    s: &'scope Scope<'scope, 'env>,
    text: &'env RefCell<&'static str>,
) {
    let local = String::from("local");
    s.spawn(|| text.replace(&local)); //~ E0597
}

fn gathered_closures_may_borrow_only_what_lives() -> Vec<usize> {
    let closures = {
        let text = String::from("text");
        [|| text.len()] //~ E0597
    };
    plainsong::task::gather(closures)
}

fn a_guard_does_not_outlive_its_lock() {
    let guard = {
        let mutex = plainsong::sync::Mutex::new(1);
        mutex.lock().unwrap() //~ E0597
    };
    drop(guard);
}

fn a_mutex_is_not_reached_beside_its_guard() {
    let mut mutex = plainsong::sync::Mutex::new(1);
    let guard = mutex.lock().unwrap();
    *mutex.get_mut().unwrap() += 1; //~ E0502
    drop(guard);
}

fn a_permit_does_not_outlive_its_semaphore() {
    let permit = {
        let semaphore = plainsong::sync::Semaphore::new(1);
        semaphore.acquire().unwrap() //~ E0597
    };
    drop(permit);
}

fn a_handle_is_joined_once() {
    let child = spawn(|| 1);
    drop(child.join());
    drop(child.join()); //~ E0382
}

fn a_generator_borrows_nothing() {
    let text = String::from("text");
    plainsong::generator::Generator::<usize>::new(|out| out.yield_(text.len())); //~ E0373
}

fn a_yielder_stays_in_its_body() {
    let mut kept = None;
    plainsong::generator::Generator::<i32>::new(|out| kept = Some(out)); //~ E0521
}

fn a_coroutine_local_is_borrowed_for_a_call() {
    plainsong::coroutine_local!(static NAME: String = String::new());
    let mut kept = "";
    NAME.with(|name| kept = name); //~ E0521
}
