// Command whoami answers with what it was asked, and by whom.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sort"
)

var version = "unknown"

func main() {
	port := flag.Int("port", 80, "where to listen")
	flag.Parse()
	http.HandleFunc("/", whoami)
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("whoami %s listens on %s", version, listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}

func whoami(answer http.ResponseWriter, request *http.Request) {
	name, _ := os.Hostname()
	fmt.Fprintf(answer, "Hostname: %s\nUser: %d\n%s %s %s\n", name, os.Getuid(), request.Method, request.URL, request.Proto)
	var headers []string
	for header := range request.Header {
		headers = append(headers, header)
	}
	sort.Strings(headers)
	for _, header := range headers {
		fmt.Fprintf(answer, "%s: %s\n", header, request.Header.Get(header))
	}
}
