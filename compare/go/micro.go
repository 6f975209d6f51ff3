// Go's arms of the micro-benchmarks. Prints one sample as a JSON array.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	warmUp = 10
	long   = time.Hour
)

func main() {
	count := number(os.Args[2])
	work := number(os.Args[3])
	switch os.Args[1] {
	case "switch":
		yield(count, work)
	case "spawn":
		spawn(count, work)
	case "channel":
		channel(count, work)
	case "lock":
		lock(work)
	case "timeouts":
		timeouts(work)
	case "skynet":
		skynet(count, work)
	case "cross":
		runtime.GOMAXPROCS(2)
		cross(work)
	case "memory":
		memory(count)
	case "timers":
		fmt.Println(timers(count))
	}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

func nsEach(elapsed time.Duration, count int) float64 {
	return float64(elapsed.Nanoseconds()) / float64(count)
}

// A stopwatch that many goroutines share: it records when the first and the last of them pass.
type line struct {
	expected, crossed int64
	first, last       time.Time
}

func newLine(expected int) *line { return &line{expected: int64(expected)} }

func (l *line) cross() {
	crossed := atomic.AddInt64(&l.crossed, 1)
	if crossed == 1 {
		l.first = time.Now()
	}
	if crossed == l.expected {
		l.last = time.Now()
	}
}

// Waits until all have passed.
func (l *line) wait() {
	for atomic.LoadInt64(&l.crossed) < l.expected {
		time.Sleep(time.Millisecond)
	}
}

func yield(tasks, work int) {
	turns := work / tasks
	if turns < 1 {
		turns = 1
	}
	warm, done := newLine(tasks), newLine(tasks)
	var all sync.WaitGroup
	for i := 0; i < tasks; i++ {
		all.Add(1)
		go func() {
			for i := 0; i < warmUp; i++ {
				runtime.Gosched()
			}
			warm.cross()
			for i := 0; i < turns; i++ {
				runtime.Gosched()
			}
			done.cross()
			all.Done()
		}()
	}
	all.Wait()
	fmt.Printf("[%f]\n", nsEach(done.last.Sub(warm.last), tasks*turns))
}

func spawn(alive, work int) {
	batches := work / alive
	if batches < 1 {
		batches = 1
	}
	var began time.Time
	var all sync.WaitGroup
	for batch := 0; batch < warmUp+batches; batch++ {
		if batch == warmUp {
			began = time.Now()
		}
		all.Add(alive)
		for i := 0; i < alive; i++ {
			go all.Done()
		}
		all.Wait()
	}
	fmt.Printf("[%f]\n", nsEach(time.Since(began), alive*batches))
}

// Round trips through two unbuffered channels, by many pairs; then a stream. Go has no unbounded channel: that of
// the stream has room for 128.
func channel(pairs, work int) {
	trips := work / pairs
	if trips < 1 {
		trips = 1
	}
	done, start := newLine(pairs), make(chan struct{})
	var warm, all sync.WaitGroup
	warm.Add(pairs)
	for i := 0; i < pairs; i++ {
		ping, pong := make(chan int), make(chan int)
		all.Add(2)
		go func() {
			for i := 0; i < warmUp+trips; i++ {
				pong <- <-ping
			}
			all.Done()
		}()
		go func() {
			for i := 0; i < warmUp+trips; i++ {
				if i == warmUp {
					warm.Done()
					<-start
				}
				ping <- i
				<-pong
			}
			done.cross()
			all.Done()
		}()
	}
	warm.Wait()
	letGo := time.Now()
	close(start)
	all.Wait()
	items := 3 * work
	stream := make(chan int, 128)
	began := time.Now()
	go func() {
		for i := 0; i < items; i++ {
			stream <- i
		}
	}()
	for i := 0; i < items; i++ {
		<-stream
	}
	elapsed := time.Since(began)
	fmt.Printf("[%f,%f]\n", nsEach(done.last.Sub(letGo), pairs*trips), nsEach(elapsed, items))
}

func cross(trips int) {
	ping, pong := make(chan int), make(chan int)
	go func() {
		for {
			pong <- <-ping
		}
	}()
	began := time.Now()
	for i := 0; i < trips; i++ {
		ping <- i
		<-pong
	}
	trip := nsEach(time.Since(began), trips)
	items := 20 * trips
	stream := make(chan int, 128)
	began = time.Now()
	go func() {
		for i := 0; i < items; i++ {
			stream <- i
		}
	}()
	for i := 0; i < items; i++ {
		<-stream
	}
	fmt.Printf("[%f, %f]\n", trip, nsEach(time.Since(began), items))
}

func lock(work int) {
	var mutex sync.Mutex
	counter := 0
	began := time.Now()
	for i := 0; i < work; i++ {
		mutex.Lock()
		counter++
		mutex.Unlock()
	}
	fmt.Printf("[%f]\n", nsEach(time.Since(began), work))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Reads of one byte that has arrived, without a deadline and with one that is set each time.
func timeouts(work int) {
	const batch = 30_000
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	feeder, err := net.Dial("tcp", listener.Addr().String())
	must(err)
	conn, err := listener.Accept()
	must(err)
	read := func(deadline bool) time.Duration {
		_, err := feeder.Write(make([]byte, batch))
		must(err)
		one := make([]byte, 1)
		began := time.Now()
		for i := 0; i < batch; i++ {
			if deadline {
				must(conn.SetReadDeadline(time.Now().Add(time.Minute)))
			}
			_, err := conn.Read(one)
			must(err)
		}
		must(conn.SetReadDeadline(time.Time{}))
		return time.Since(began)
	}
	var bare, guarded time.Duration
	batches := (work + batch - 1) / batch
	for i := 0; i <= batches; i++ {
		without, with := read(false), read(true)
		if i > 0 {
			bare, guarded = bare+without, guarded+with
		}
	}
	reads := batches * batch
	fmt.Printf("[%f,%f,%f]\n", nsEach(guarded-bare, reads), nsEach(bare, reads), nsEach(guarded, reads))
}

// The sum of a tree of numbers; each inner task has ten children.
func skynet(workers, leaves int) {
	runtime.GOMAXPROCS(workers)
	var took time.Duration
	// The first tree warms up the stacks.
	for i := 0; i < 2; i++ {
		began := time.Now()
		result := make(chan int)
		go tree(result, 0, leaves)
		if sum := <-result; sum != leaves*(leaves-1)/2 {
			panic("the sum is wrong")
		}
		took = time.Since(began)
	}
	fmt.Printf("[%f]\n", took.Seconds()*1000)
}

func tree(result chan int, first, leaves int) {
	if leaves == 1 {
		result <- first
		return
	}
	results := make(chan int)
	for i := 0; i < 10; i++ {
		go tree(results, first+i*(leaves/10), leaves/10)
	}
	sum := 0
	for i := 0; i < 10; i++ {
		sum += <-results
	}
	result <- sum
}

// The value of a field of a /proc file, in bytes.
func held(file, field string) float64 {
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, field) {
			return float64(number(strings.Fields(line)[1])) * 1024
		}
	}
	panic("/proc has no " + field)
}

func memory(tasks int) {
	allSleep := func(tasks int, duration time.Duration) {
		l := newLine(tasks)
		for i := 0; i < tasks; i++ {
			go func() {
				l.cross()
				time.Sleep(duration)
			}()
		}
		l.wait()
		time.Sleep(2 * time.Millisecond)
	}
	allSleep(1, time.Millisecond)
	resident, pageTables := held("/proc/self/smaps_rollup", "Rss:"), held("/proc/self/status", "VmPTE:")
	allSleep(tasks, long)
	resident = held("/proc/self/smaps_rollup", "Rss:") - resident
	pageTables = held("/proc/self/status", "VmPTE:") - pageTables
	fmt.Printf("[%f,%f]\n", resident/float64(tasks), pageTables/float64(tasks))
}

// Goroutines that wait at a gate, pass it, wait in one of three ways, and end.
type crowd struct {
	reached, entered, left *line
	open                   chan struct{}
	due                    time.Time
}

func newCrowd(tasks int, lead time.Duration, wait func(c *crowd, index int)) *crowd {
	c := &crowd{reached: newLine(tasks), entered: newLine(tasks), left: newLine(tasks),
		open: make(chan struct{})}
	for i := 0; i < tasks; i++ {
		index := i
		go func() {
			c.reached.cross()
			<-c.open
			c.entered.cross()
			wait(c, index)
			c.left.cross()
		}()
	}
	c.reached.wait()
	c.due = time.Now().Add(lead)
	close(c.open)
	c.entered.wait()
	return c
}

func (c *crowd) entering() time.Duration { return c.entered.last.Sub(c.entered.first) }

// Goroutines cannot be cancelled: they receive from a channel, and stop their timers when it is closed.
func timers(tasks int) string {
	spread := func(index int) time.Duration {
		return 20 * time.Nanosecond * time.Duration(index/256*256+index*0x9E3779B9%256)
	}
	// The first crowd pays for memory that the others reuse.
	first := newCrowd(tasks, 0, func(*crowd, int) {})
	first.left.wait()
	ended := newCrowd(tasks, 0, func(*crowd, int) {})
	ended.left.wait()

	cancel := make(chan struct{})
	never := make(chan time.Time)
	parked := newCrowd(tasks, 0, func(*crowd, int) {
		select {
		case <-never:
		case <-cancel:
		}
	})
	began := time.Now()
	close(cancel)
	parked.left.wait()
	cancelParked := parked.left.last.Sub(began)

	cancel = make(chan struct{})
	asleep := newCrowd(tasks, 0, func(_ *crowd, index int) {
		timer := time.NewTimer(long + spread(index))
		select {
		case <-timer.C:
		case <-cancel:
			timer.Stop()
		}
	})
	began = time.Now()
	close(cancel)
	asleep.left.wait()
	cancelAsleep := asleep.left.last.Sub(began)

	lead := 100*time.Millisecond + 4*time.Microsecond*time.Duration(tasks)
	fired := newCrowd(tasks, lead, func(c *crowd, index int) { time.Sleep(time.Until(c.due) + spread(index)) })
	if fired.entered.last.After(fired.due) {
		fmt.Fprintln(os.Stderr, "some were due before the last slept")
		os.Exit(1)
	}
	fired.left.wait()

	park, add := nsEach(parked.entering(), tasks), nsEach(fired.entering(), tasks)
	// It was due when its gate was opened.
	end := nsEach(ended.left.last.Sub(ended.due), tasks)
	fire := nsEach(fired.left.last.Sub(fired.due), tasks)
	without, with := nsEach(cancelParked, tasks), nsEach(cancelAsleep, tasks)
	return fmt.Sprintf("[%f,%f,%f,%f,%f,%f]", add-park, fire-end, with-without, add, fire, with)
}
