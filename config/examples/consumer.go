// Reads mail from Mailrace's stream, at least once, and commits what it has dealt with.
//
//	go run consumer.go -url http://127.0.0.1:2580 -group example
//
// Standard library only. A record may come twice (after a crash, or a commit that was lost): its ID
// never changes, so keep it with what you store.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"time"
)

const commitEvery = 100

type event struct {
	ID   string `json:"id"`
	Data struct {
		Log struct {
			Shard  uint16 `json:"shard"`
			Offset uint64 `json:"offset"`
		} `json:"log"`
		Envelope struct {
			MailFrom string   `json:"mail_from"`
			RcptTo   []string `json:"rcpt_to"`
		} `json:"envelope"`
		Subject *string `json:"subject"`
		Raw     struct {
			Data []byte `json:"data"` // base64, decoded by encoding/json
			Ref  string `json:"ref"`
		} `json:"raw"`
	} `json:"data"`
}

// handle is yours. What it does must be durable when it returns.
func handle(e event) error {
	mail := e.Data.Raw.Data
	if e.Data.Raw.Ref != "" { // a large message: fetch it
		answer, err := http.Get(e.Data.Raw.Ref)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if mail, err = io.ReadAll(answer.Body); err != nil {
			return err
		}
	}
	fmt.Println(e.ID, len(mail), e.Data.Envelope.MailFrom, strings.Join(e.Data.Envelope.RcptTo, ","))
	return nil
}

// commit names the next offset wanted, by shard.
func commit(url, group string, offsets map[uint16]uint64) error {
	body, err := json.Marshal(offsets)
	if err != nil {
		return err
	}
	answer, err := http.Post(url+"/v1/groups/"+group+"/commit", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("commit: %s %s", answer.Status, text)
	}
	return nil
}

func consume(url, group string) error {
	answer, err := http.Get(fmt.Sprintf("%s/v1/stream?group=%s&follow=1&max_inflight=%d", url, group, 10*commitEvery))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("%s %s", answer.Status, text)
	}
	offsets := map[uint16]uint64{}
	lines := bufio.NewReaderSize(answer.Body, 1<<20)
	for handled := 1; ; handled++ {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		if err := handle(e); err != nil {
			return err
		}
		offsets[e.Data.Log.Shard] = e.Data.Log.Offset + 1
		// Nothing more is buffered: commit also when the stream pauses.
		if handled%commitEvery == 0 || lines.Buffered() == 0 {
			if err := commit(url, group, offsets); err != nil {
				return err
			}
		}
	}
}

func main() {
	url := flag.String("url", "http://127.0.0.1:2580", "Mailrace's admin listener")
	group := flag.String("group", "example", "consumer group")
	flag.Parse()
	for wait := time.Second; ; wait = min(wait*2, 30*time.Second) {
		began := time.Now()
		err := consume(*url, *group)
		if time.Since(began) > time.Minute {
			wait = time.Second
		}
		log.Printf("again in %v: %v", wait, err)
		time.Sleep(wait)
	}
}
