//! The borrows and the types of `select!` and `Select`.

use plainsong::select;
use plainsong::sync::channel::{Receiver, Sender, bounded};
use plainsong::sync::select::Select;
use plainsong::sync::Event;

fn a_select_does_not_outlive_its_channels() {
    let mut either = Select::new();
    {
        let (sender, receiver) = bounded::<i32>(1);
        either.recv(&receiver); //~ E0597
        either.send(&sender); //~ E0597
        let event = Event::new();
        either.wait(&event); //~ E0597
    }
    either.select();
}

fn a_receiver_is_not_dropped_while_it_is_awaited(receiver: Receiver<i32>) {
    let mut either = Select::new();
    either.recv(&receiver);
    drop(receiver); //~ E0505
    either.select();
}

fn a_choice_is_completed_once(receiver: &Receiver<i32>) {
    let mut either = Select::new();
    either.recv(receiver);
    let chosen = either.select();
    drop(chosen.recv(receiver));
    drop(chosen.recv(receiver)); //~ E0382
}

fn the_item_of_a_send_is_moved(sender: &Sender<String>, receiver: &Receiver<i32>) {
    let text = String::from("text");
    select! {
        send(sender, text) -> sent => sent.unwrap(),
        recv(receiver) -> _ => {}
    }
    drop(text); //~ E0382
}

fn a_joined_handle_is_used_up(receiver: &Receiver<i32>) {
    let child = plainsong::spawn(|| 1);
    select! {
        join(child) -> _ => {}
        recv(receiver) -> _ => {}
    }
    drop(child.join()); //~ E0382
}

fn a_handle_that_is_lent_is_not_joined_in_another_arm(receiver: &Receiver<i32>) {
    let mut child = plainsong::spawn(|| 1);
    select! {
        join(&mut child) -> _ => {}
        join(&mut child) -> _ => {} //~ E0499
    }
}
