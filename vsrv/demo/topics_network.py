"""What the demo model knows about the options of the network side: addresses, TLS, access, limits, logs."""

from __future__ import annotations

from vsrv.demo.topic import option

NETWORK = (
    option(
        "host",
        "sets the address to listen on: 127.0.0.1 (the default) is this machine only, 0.0.0.0 all networks.",
        "--host 0.0.0.0 --api-key SECRET",
        goals="""listen on all interfaces; bind to {ip}; bind to 0.0.0.0; make the server reachable from other
        machines; make it reachable over the network; expose the server to my local network; let other computers
        connect; open it up to the LAN; accept connections from outside; access it from another computer; access it
        from my phone on the same wifi; listen only on localhost; keep it on loopback; restrict it to this machine;
        choose the network interface; use one particular network card; choose the bind address; change the listening
        address; change the ip address; listen on ipv6; listen on a different IP; serve on my VPN address; reach the
        api remotely; make it visible to my colleagues on the office network; publish it on every interface; bind to
        a single NIC; connect from a different computer; expose it outside the container; hide the server from the
        network; make the server local only""",
        nouns="""the bind address; the listening address; the listen address; the ip address it binds to; the network
        interface; the IP the server listens on; the address of the server; which interface is used; the hostname to
        listen on; the network address; the host; the interface to bind; remote access; access from other machines""",
        problems="""I can only reach it from the same machine; my laptop cannot connect to the server in the other
        room; connection refused from another host; it works on localhost but not from other computers; it only
        answers on 127.0.0.1; other machines cannot see the server; the server is not visible on the network; docker
        port mapping does not reach the server; my colleague in the same office cannot connect; I want to reach it
        from {ip}; the container does not answer from outside; clients on the LAN get connection refused""",
        asks="""how do other computers reach this server; why can nobody else on my network connect; can I call it
        from another machine; does it listen on all addresses; on which address does vsrv listen; listen on 0.0.0.0;
        how to open the server for the whole network; is the server visible from outside; where do I put the ip to
        bind to; can my phone talk to it""",
        keys="host; bind; address; interface; 0.0.0.0; localhost; ip; lan; network; listen; loopback; remote; hostname",
    ),
    option(
        "port",
        "sets the TCP port that the server listens on (default 8000).",
        "--port 9000",
        goals="""change the port; listen on another port; use port {port}; run on port {port} instead of 8000; pick a
        different port number; serve on {port}; move the server to port {port}; listen on {port}; choose the tcp
        port; not use port 8000; let two servers run side by side on one machine; run a second copy next to the
        first; avoid the port conflict; switch to port {port}; have it on port 80; set the port number; start it on a
        free port""",
        nouns="""the port; the port number; the tcp port; the listening port; the port the server uses; the port of
        the api; which port is used; the default port; the network port; the http port; another port""",
        problems="""port 8000 is already in use; port 8000 is taken; address already in use; another program uses
        port 8000; 8000 is occupied by something else; I get errno 98 address already in use; the port is busy; my
        firewall only opens port {port}; only {port} is open in our firewall; jupyter already sits on 8000; the port
        collides with another service; bind fails because the port is taken""",
        asks="""what port does it run on; on which port does vsrv listen; can I use a port other than 8000; can it
        run on {port}; why 8000; which port do I connect to; how to make it listen on {port}; where is the port set;
        8000 is taken what now""",
        keys="port; port number; tcp; 8000; listening port; {port}; address in use; ports; socket port",
    ),
    option(
        "ssl-certfile",
        "names the TLS certificate for HTTPS; give --ssl-keyfile with it. To make one: vsrv cert.",
        "--ssl-certfile cert.pem --ssl-keyfile key.pem",
        goals="""turn on https; enable TLS; serve over https; encrypt the traffic; encrypt connections; use my
        certificate; use a certificate from let's encrypt; set up ssl; have a secure connection; secure the
        connection; make the connection encrypted; use encryption; protect the traffic from eavesdropping; speak
        https instead of http; add a certificate; install my pem certificate; make it https only; use a self signed
        certificate; give the server a certificate; get a padlock in the browser; stop sending prompts in clear
        text; terminate tls in the server; point it to my fullchain.pem; present a certificate chain; protect data in
        transit; keep others from reading the traffic; run it securely over the internet; make the link private;
        encrypt what goes over the wire""",
        nouns="""https; tls; ssl; encryption; the certificate; the certificate file; the server certificate; the ssl
        certificate; the tls certificate; the certificate chain; transport encryption; secure http; encrypted
        connections; the cert; the crt file; the pem file; x509 certificate; transport security; my let's encrypt
        cert""",
        problems="""the connection is not secure; everything goes in plain text; my company requires encryption; the
        browser says not secure; I have a certificate; the client insists on https; our security team wants tls; we
        are not allowed to send data unencrypted; somebody could sniff the traffic; http is not good enough, I need
        https; https requests fail; wrong version number ssl error when I use https; prompts travel unencrypted; I
        bought a certificate for {domain}""",
        asks="""does it support https; is the traffic encrypted; can the server do tls by itself; how to make it
        https; where do I put my certificate; can I use let's encrypt; is ssl possible; how is the connection
        secured; do I need nginx for https; which option takes the certificate; can vsrv do encryption""",
        keys="""https; tls; ssl; certificate; cert; encryption; encrypted; secure; pem; crt; x509; letsencrypt;
        secure connection; fullchain; padlock; transport security""",
    ),
    option(
        "ssl-keyfile",
        "names the private key file that belongs to --ssl-certfile.",
        "--ssl-certfile cert.pem --ssl-keyfile key.pem",
        goals="""give the private key; pass the private key of the certificate; point to the key file; load the
        private key; specify privkey.pem; set the path of the tls private key; supply the key that matches the
        certificate; tell it where the private key is; use a separate key file; use my server.key""",
        nouns="""the private key; the key file; the tls key; the ssl key; the private key of the certificate; the
        certificate key; the key for my cert; privkey.pem; server.key; the pem key file; the ssl private key; the
        rsa key; the key belonging to the certificate""",
        problems="""I have a key.pem too; the certificate is set but where does the private key go; it says the
        private key is missing; my certificate and my key are in two files; the key of my certificate is in {path}; I
        got privkey.pem from let's encrypt""",
        asks="""where does the private key go; which option takes privkey.pem; how do I give it the key of the
        certificate; where do I put the .key file; what about the private key""",
        keys="private key; key.pem; keyfile; privkey; tls key; ssl key; certificate key; server.key; rsa key",
    ),
    option(
        "ssl-ca-certs",
        "names the CA file that client certificates are checked against (mutual TLS; --ssl-cert-reqs 2 demands one).",
        "--ssl-certfile cert.pem --ssl-keyfile key.pem --ssl-ca-certs ca.pem --ssl-cert-reqs 2",
        goals="""require client certificates; check client certificates; verify the certificate of the caller; use
        mutual tls; set up mtls; trust only clients signed by our CA; authenticate clients by certificate; give the
        CA bundle; use our own certificate authority for clients; demand a certificate from every client; let in only
        devices with a certificate from us; validate client certs; do two way ssl""",
        nouns="""client certificates; mutual tls; mtls; the ca bundle; the ca file; the certificate authority; client
        cert verification; the trusted CA; the root certificates for clients; two way tls; client certificate
        authentication; the ca certificate""",
        problems="""clients must show a certificate; we use mtls everywhere; every client has its own certificate;
        our company CA signs the client certs; I want certificates on both sides""",
        asks="""does it do mutual tls; can clients log in with certificates; how are client certificates verified;
        which option takes the ca bundle; can the server ask for a client certificate""",
        keys="mtls; mutual tls; client certificate; ca; ca bundle; certificate authority; client cert; root ca",
    ),
    option(
        "api-key",
        "sets the key that clients must send as 'Authorization: Bearer KEY'; several are allowed. Better for many: --api-key-file.",
        "--api-key SECRET",
        goals="""require a key; require an api key; protect the server with a password; set a password; ask for a
        password; require authentication; demand a bearer token; let only authorised people in; keep strangers out;
        keep others from using my server; stop unauthorised use; add authentication; turn on auth; restrict access to
        people with a token; have several keys; give each user a separate key; secure the api with a token; lock the
        server; make it private; prevent just anyone from
        calling it; prevent abuse by unknown callers; require a login; set the secret token; check credentials;
        authenticate callers; put a lock on the endpoint; require a secret from clients; add a second key; use two
        keys at once""",
        nouns="""the api key; authentication; the password; the access token; the bearer token; the secret; access
        control; api keys; the authorization header; login; credentials; the token clients send; auth; a password for
        the server; user authentication; several api keys; the client key; authorization""",
        problems="""anyone can use my server; strangers are using my api; everybody on the network can call it; I do
        not want others to use it; it is open to everyone; my clients get 401; I get 401 unauthorized; it says invalid
        api key; the server has no password; somebody else burns my gpu; the api is unprotected; my openai client
        insists on a key; only my team should be able to use it; random people send prompts""",
        asks="""how do I password protect this; is there any authentication; how do clients log in; who can use my
        server; can I set a token; which header carries the key; can I have more than one key; how can I keep the bad
        guys out; how do I lock it down; does vsrv support bearer tokens; where do I set the secret""",
        keys="""api key; password; token; auth; authentication; bearer; secret; login; credentials; 401;
        authorization; access control; keys; unauthorized; api keys; passphrase""",
    ),
    option(
        "allow-unauthenticated",
        "lets the server listen on a public address without any key (otherwise it refuses to start).",
        "--host 0.0.0.0 --allow-unauthenticated",
        goals="""run without a key on a public address; allow access without a password; run without authentication;
        serve everybody without a key; disable authentication; switch the authentication off; bind to 0.0.0.0 without
        a key; skip the key requirement; open the server to anyone; allow anonymous access; let anonymous users in;
        accept calls with no token; start without an api key; make it public with no login; have no password at all;
        override the refusal to start without a key; expose it with no credentials; drop the key check; make it
        completely open""",
        nouns="""anonymous access; no authentication; unauthenticated access; open access; access without a key;
        public access without key; running without api key; keyless operation; no password""",
        problems="""it refuses to start without a key; vsrv will not listen on 0.0.0.0 without an api key; it says a
        key is needed for a non-loopback address; I do not need a password on my private network; the network is
        trusted, I want no key; our proxy already does the authentication; it demands an api key but I do not want
        one; authentication is done elsewhere; start fails because no key is set""",
        asks="""can I run it without any key; can people use it without logging in; how do I turn off auth; why does
        it refuse to start on 0.0.0.0; how to serve with no authentication; can it be open to all; how to get rid of
        the key requirement""",
        keys="""unauthenticated; anonymous; no auth; no key; without key; open access; no password; disable auth;
        public; no authentication; keyless; no login""",
    ),
    option(
        "allowed-origins",
        "lists the web origins whose pages may call the server from a browser (CORS).",
        "--allowed-origins https://app.example",
        goals="""set up cors; allow cross origin requests; enable CORS; let my website call the api; let my web page
        call it; allow only my website to call it; allow requests from {url}; permit javascript from {domain}; call it
        from a browser; call it from a react app; use fetch from my frontend; fix the cors error; let a single page
        app talk to the server; allow any origin; restrict which websites may use it from the browser; whitelist my
        domain; permit my front end; let a browser extension use the api; let other sites embed it; accept ajax calls
        from {domain}; send the access-control-allow-origin header; control which web pages can access it; allow
        calls from another domain; accept requests from a page on localhost:3000""",
        nouns="""cors; cross origin requests; the allowed origins; the origins; cors headers; cross-site requests;
        access-control-allow-origin; the websites that may call it; browser access; web origins; the permitted
        domains; the preflight; cross domain calls; the origin whitelist""",
        problems="""my browser blocks the request; the browser complains about cors; blocked by CORS policy; no
        access-control-allow-origin header is present; my web app cannot call the server; fetch fails in the browser
        but curl works; preflight request fails; my frontend on {url} gets an error; javascript on my page cannot
        reach it; only my website should be allowed to call it; the options request is rejected; my react app is
        refused; it works in curl but not from my web page; cross-origin request blocked""",
        asks="""how do I do cors; can a web page talk to it; can I use it from javascript in the browser; which sites
        may call the server; how to whitelist an origin; why is my browser refusing; can my website use this server
        directly; how to allow one domain""",
        keys="""cors; origin; origins; cross origin; browser; website; javascript; frontend; preflight; fetch;
        web page; domain whitelist; access-control-allow-origin; ajax; webapp; cross-site""",
    ),
    option(
        "root-path",
        "sets the path prefix under which a reverse proxy publishes the server.",
        "--root-path /llm",
        goals="""serve under a path prefix; run behind nginx under {prefix}; put it behind a reverse proxy at
        {prefix}; mount the api on a sub path; use a url prefix; host it in a sub directory of my site; serve all
        routes below {prefix}; strip the prefix from the proxy; prepend {prefix} to every route; place the server
        under {url}{prefix}; use a base path""",
        nouns="""the path prefix; the url prefix; the base path; the root path; the reverse proxy prefix; the mount
        point in the url; the sub path behind nginx; the base url path; the context path""",
        problems="""nginx forwards {prefix} to vsrv and I get 404; my reverse proxy adds a prefix; behind traefik all
        routes give 404; my proxy does not strip the path; the api lives below {prefix} on our site; behind the
        ingress every url starts with {prefix}""",
        asks="""can it live under {prefix}; how to run it behind a reverse proxy with a sub path; can the urls start
        with {prefix}; does it work below a sub directory; how do I tell it about the proxy prefix""",
        keys="""reverse proxy; prefix; path prefix; nginx; sub path; base path; root path; subpath; url prefix;
        traefik; ingress; behind proxy; subdirectory""",
    ),
    option(
        "uds",
        "makes the server listen on a Unix domain socket in place of a TCP port.",
        "--uds /run/vsrv.sock",
        goals="""listen on a unix socket; use a unix domain socket; use a socket file instead of tcp; serve on
        /run/vsrv.sock; avoid opening a tcp port; talk over a local socket file; connect nginx by unix socket; bind to
        a socket path; have no network port at all; use a .sock file; use AF_UNIX""",
        nouns="""the unix socket; the unix domain socket; the socket file; the socket path; af_unix; a local socket;
        the .sock file; the uds; ipc socket""",
        problems="""I do not want any tcp port; nginx talks to its upstream through a socket file; only local
        processes should connect, through the file system; I want a sock file""",
        asks="""can it listen on a unix socket; does it support unix domain sockets; can I use a socket file; is tcp
        required; can it work without tcp""",
        keys="unix socket; uds; socket file; domain socket; .sock; af_unix; unix domain socket; sock; ipc",
    ),
    option(
        "max-body-bytes",
        "limits the size of a request body in bytes; larger ones get 413.",
        "--max-body-bytes 8388608",
        goals="""limit the size of a request; accept larger requests; allow bigger uploads; cap the request body;
        reject huge payloads; raise the body size limit; send bigger json; limit the payload; refuse oversized
        posts; protect against giant bodies; set the maximum request size; allow posts of {gb} MB; keep clients from
        sending megabytes""",
        nouns="""the request size limit; the maximum body size; the payload size; the body limit; the upload limit;
        the size of the request body; the maximum post size; the biggest request accepted; the http body limit; the
        number of bytes in a request""",
        problems="""my request is rejected as too large; I get 413; payload too large; request entity too large; my
        json body is {gb} MB and refused; someone sends enormous requests; the upload is too big; huge bodies fill the
        memory""",
        asks="""how big can a request be; how large may the json be; what is the maximum payload; why do I get 413; how
        many bytes may I post; is there a limit on the body""",
        keys="""413; body size; payload; request size; too large; upload; body limit; bytes; max body; post size;
        megabytes""",
    ),
    option(
        "keep-alive-timeout",
        "sets after how many seconds an idle connection is closed (default 120).",
        "--keep-alive-timeout 30",
        goals="""close idle connections sooner; keep connections open longer; set the keep alive time; drop idle
        clients; change the idle timeout; hold http connections open for {n} seconds; let clients reuse connections
        longer; stop the server from closing my connection; close unused connections after {n} seconds; tune
        persistent connections; disconnect silent clients""",
        nouns="""the keep alive timeout; the idle timeout; the keepalive; the idle connection timeout; how long a
        connection stays open; persistent connections; the time an unused connection is kept; http keep-alive;
        connection reuse time""",
        problems="""idle connections stay open too long; the server closes my connection between requests; my load
        balancer gets resets on idle connections; connections are dropped after a few seconds without traffic; too
        many idle sockets; my http pool finds dead connections""",
        asks="""how long do connections stay open; when is an idle connection closed; can connections be kept longer
        between requests; how to avoid connection resets from idle time""",
        keys="keep alive; keepalive; idle timeout; idle connections; persistent connection; keep-alive; idle; timeout idle",
    ),
    option(
        "max-num-queued-reqs",
        "limits how many requests may wait or run; beyond that clients get 503 (default 1024).",
        "--max-num-queued-reqs 200",
        goals="""limit the queue; cap the number of waiting requests; reject requests when overloaded; shed load;
        bound the backlog; keep the queue short; answer 503 when too many wait; refuse new work when busy; limit the
        length of the waiting line; stop requests from piling up; protect the server from overload; allow a longer
        queue; fail fast under heavy load; turn clients away when the queue is full""",
        nouns="""the queue length; the queue size; the backlog; the waiting line; the number of waiting requests; the
        number of pending requests; the request queue; load shedding; overload protection; the queue limit; the
        maximum backlog; admission limit""",
        problems="""requests pile up; the queue grows without end; clients wait forever in the queue; I would rather
        get 503 than wait; under overload everything becomes slow; thousands of requests are pending; I get 503 queue
        full; the backlog explodes at peak time; requests sit in the queue for minutes""",
        asks="""how many requests can wait; what happens when the queue is full; can the queue be limited; how many
        requests may be pending; why do I get 503 too busy; how long is the line""",
        keys="""queue; backlog; waiting requests; overload; 503; pending; queue length; load shedding; queued;
        queue full; busy""",
    ),
    option(
        "shutdown-timeout",
        "sets how many seconds running requests may finish after SIGTERM before the server stops (default 30).",
        "--shutdown-timeout 60",
        goals="""shut down gracefully; let running requests finish before stopping; drain connections; wait for
        requests on SIGTERM; stop cleanly; finish current answers before exit; give requests time when I restart; have
        zero downtime restarts; set the grace period; do a rolling update without broken streams; exit at once on
        stop; not cut off users on restart; wait {n} seconds before quitting; drain before terminating; complete
        running generations when the pod is deleted""",
        nouns="""graceful shutdown; the grace period; the drain time; the shutdown delay; the time to finish at stop;
        draining; a clean stop; the termination grace period; connection draining; graceful stop""",
        problems="""requests are cut off when I restart; users lose their answers during a deploy; ctrl-c kills
        running requests; streams break when systemd stops the service; kubernetes kills my pod in the middle of an
        answer; on sigterm everything is aborted; stopping takes too long; the server takes ages to quit""",
        asks="""what happens to running requests on shutdown; can it finish what it is doing before it stops; how to
        stop the server without losing answers; does it drain; how long does it wait at sigterm; is there a graceful
        stop""",
        keys="""graceful; shutdown; drain; sigterm; grace period; stop; restart; terminate; draining; clean exit;
        graceful stop; rolling update""",
    ),
    option(
        "log-level",
        "sets how much is logged: debug, info, warning or error.",
        "--log-level debug",
        goals="""see more log messages; get debug output; make the logs verbose; log less; be quiet; silence the
        logs; show only errors; hide info messages; change the verbosity; turn on debug logging; see what the server
        is doing; reduce the log noise; get more detail in the log; print fewer messages; see only warnings; make it
        less chatty; get more diagnostics; suppress the output""",
        nouns="""the log level; the verbosity; debug logging; the amount of logging; the logging level; verbose mode;
        quiet mode; the log detail; debug messages; the level of the log; debug mode; log noise""",
        problems="""the log is too noisy; there is too much output; I cannot see what it is doing; my logs fill the
        disk; the logs do not tell enough; it prints too many lines; the terminal is flooded with messages; I need
        more information to debug""",
        asks="""how to get more logs; how do I make it shut up; is there a verbose mode; is there a quiet flag; how
        do I see debug messages; why does it log so much; how can I debug it; can it be less talkative""",
        keys="log level; verbose; debug; quiet; verbosity; logging; logs; silent; noisy; warning; -v; log detail",
    ),
    option(
        "log-format",
        "sets the form of the log lines: text or json.",
        "--log-format json",
        goals="""log as json; get structured logs; write json lines; send logs to elasticsearch; make the logs machine
        readable; feed the logs to loki; parse the logs with jq; change the format of the log lines; switch to plain
        text logs; get logs for datadog; have one json object per log line; ship logs to splunk; make logs easy to
        parse""",
        nouns="""the log format; json logs; structured logging; the format of the logs; json logging; the log line
        format; machine readable logs; the log style; log output format; the shape of the log lines""",
        problems="""our log collector wants json; I cannot parse the log lines; fluentd needs structured logs; the
        logs should be json; grafana loki wants key value logs; our logging pipeline expects json""",
        asks="""can it log json; how do I get structured logs; can the logs be machine readable; what do the log lines
        look like and can I change them; is there json logging""",
        keys="""json logs; log format; structured logs; structured logging; loki; elasticsearch; json log; jq; splunk;
        fluentd; log json""",
    ),
    option(
        "enable-log-requests",
        "writes one log line for each request, never with its text (on by default; --no-enable-log-requests: off).",
        "--no-enable-log-requests",
        goals="""log each request; see who calls the server; have an access log; turn off the access log; record all requests;
        stop logging every request; see which requests come in; keep a log of calls; disable request logging""",
        nouns="""the access log; request logging; a log of requests; the request log; logging of each call; the list of
        incoming requests; a line per request""",
        problems="""I want to see the incoming requests in the log; every request writes a line and I do not want that; I cannot
        see who used the server; health checks fill the access log""",
        asks="""are requests logged; can I see each request; is there an access log; how do I stop the line for every request;
        are prompts written to the log""",
        keys="access log; request log; log requests; request logging; accesslog; log each request; incoming requests",
    ),
    option(
        "max-connections",
        "limits how many connections are open at once (default 1024).",
        "--max-connections 256",
        goals="""limit the number of connections; cap open sockets; allow more open connections; bound the tcp connections; set the
        connection limit; accept {n} sockets at most; protect against too many connections""",
        nouns="""the connection limit; the number of open connections; the maximum connections; open sockets; the number of tcp
        connections; the connection count""",
        problems="""too many connections are open; one client opens thousands of connections; we run out of file descriptors; too
        many open files; new connections hang because the limit is reached""",
        asks="""how many connections are allowed; what is the maximum number of open sockets; can the connections be limited;
        how many tcp connections does it take""",
        keys="max connections; connection limit; open connections; sockets; open sockets; connections limit; file descriptors",
    ),
)
