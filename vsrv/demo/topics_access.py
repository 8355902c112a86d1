"""What the demo model knows about the finer options of TLS, keys, browsers, proxies and metrics."""

from __future__ import annotations

from vsrv.demo.topic import option, refusal

ACCESS = (
    option(
        "ssl-keyfile-password",
        "gives the password of an encrypted --ssl-keyfile.",
        "--ssl-certfile cert.pem --ssl-keyfile key.pem --ssl-keyfile-password SECRET",
        goals="""use an encrypted private key; give the passphrase of the tls key; unlock the private key; decrypt the key
        file at start; load a key file that has a password; pass the password of key.pem; open the protected private key""",
        nouns="""the password of the private key; the passphrase of the tls key; the key file password; an encrypted key.pem;
        the pem passphrase; the secret that unlocks the certificate key; the private key password""",
        problems="""my private key is encrypted; the key file needs a passphrase; it asks for the PEM pass phrase; my key.pem
        says BEGIN ENCRYPTED PRIVATE KEY; the tls key is protected by a password; it cannot read the encrypted key""",
        asks="""where does the passphrase of the key go; can the private key have a password; how do I start with an
        encrypted key file; what about a key.pem with passphrase""",
        keys="key password; key passphrase; encrypted private key; pem passphrase; encrypted key; keyfile password",
    ),
    option(
        "ssl-cert-reqs",
        "says whether clients must show a certificate: 0 no, 1 optional, 2 required; with --ssl-ca-certs.",
        "--ssl-certfile cert.pem --ssl-keyfile key.pem --ssl-ca-certs ca.pem --ssl-cert-reqs 2",
        goals="""make client certificates optional; make client certificates mandatory; accept clients with and without a
        certificate; refuse clients that show no certificate; demand that a client certificate is presented; switch client
        certificate checking to required; only ask for a client certificate""",
        nouns="""the client certificate requirement; optional client certificates; mandatory client certificates; CERT_REQUIRED;
        CERT_OPTIONAL; the level of client certificate checking; whether a client cert is needed; the verify mode""",
        problems="""clients without a certificate still get in; the CA is set but nobody is asked for a certificate; some of my
        clients have no certificate; the handshake fails because no client certificate was sent""",
        asks="""is a client certificate required or optional; how do I force a client cert; what do 0, 1 and 2 mean for client
        certificates; can the client certificate be optional""",
        keys="cert reqs; client cert required; optional client certificate; CERT_REQUIRED; verify mode; mtls required",
    ),
    option(
        "ssl-ciphers",
        "sets the cipher list for TLS 1.2 in OpenSSL's form; the default has AEAD suites only.",
        "--ssl-certfile cert.pem --ssl-keyfile key.pem --ssl-ciphers ECDHE+AESGCM",
        goals="""choose the cipher suites; restrict the ciphers; forbid weak ciphers; allow an old client's cipher; disable
        cbc ciphers; set the openssl cipher list; permit only AES-GCM; use chacha20; harden the tls ciphers""",
        nouns="""the cipher list; the cipher suites; the allowed ciphers; tls ciphers; the ssl ciphers; the openssl cipher
        string; weak ciphers; cipher selection""",
        problems="""a scanner complains about weak ciphers; an old client finds no shared cipher; our policy lists the allowed
        cipher suites; the handshake fails with no shared cipher; our auditor wants certain ciphers""",
        asks="""which ciphers are used; can I choose the cipher suites; how do I turn off weak ciphers; which cipher suites
        does it allow""",
        keys="ciphers; cipher; cipher suite; cipher list; weak ciphers; aes; chacha20; openssl ciphers; no shared cipher",
    ),
    option(
        "enable-ssl-refresh",
        "reloads the certificate when its files change (on by default; SIGHUP does it too).",
        "--no-enable-ssl-refresh",
        goals="""renew the certificate without a restart; reload the certificate; pick up a renewed certificate; replace an
        expired certificate while it runs; rotate certificates automatically; stop watching the certificate files; keep the
        old certificate until a restart; update the cert with no downtime""",
        nouns="""certificate reload; certificate renewal; automatic reloading of the certificate; hot reload of tls files;
        certificate rotation; the refresh of the certificate; cert auto reload""",
        problems="""certbot renews the certificate every two months; the certificate expires soon and I cannot restart; after
        the renewal the old certificate is still served; my certificate changes each week; I do not want it to reload
        certificates by itself""",
        asks="""do I have to restart after renewing the certificate; does it notice a new certificate; how are renewed
        certificates loaded; what happens when certbot renews; can certificates be swapped while it runs""",
        keys="certificate reload; renew certificate; certbot renew; reload cert; ssl refresh; certificate rotation; renewal",
    ),
    option(
        "forwarded-allow-ips",
        "lists the proxies whose X-Forwarded-For is believed: addresses, networks, unix, or *.",
        "--forwarded-allow-ips 127.0.0.1",
        goals="""see the real client address behind nginx; trust X-Forwarded-For; log the client's ip instead of the proxy's;
        trust my load balancer; believe the forwarded header of my proxy; get the original ip of the caller; name the trusted
        proxies; accept forwarded addresses from {ip}""",
        nouns="""trusted proxies; x-forwarded-for; the forwarded header; the real client ip; the proxy's address in the logs;
        the list of trusted proxies; the original client address; proxy headers""",
        problems="""the log shows the proxy's address for each request; all clients appear as 127.0.0.1; behind haproxy every
        request comes from the same ip; I see only the address of nginx; X-Forwarded-For is ignored""",
        asks="""does it read X-Forwarded-For; how do I see the real ip of clients behind a proxy; which proxies are trusted;
        why do all requests come from the load balancer's ip; can anybody fake the forwarded header""",
        keys="x-forwarded-for; forwarded; trusted proxy; real ip; client ip; proxy headers; forwarded for; client address",
    ),
    option(
        "api-key-file",
        "names a file of hashed keys with tenants, scopes, expiry and limits; vsrv keys makes it. Reloaded on change.",
        "--api-key-file keys.toml",
        goals="""keep the keys in a file; have different limits for different keys; let keys expire; limit each customer's
        requests per minute; set a rate limit per key; give tenants quotas; limit tokens per minute; separate tenants; store
        hashed keys; not put keys on the command line; limit what one team may use; give a key only some scopes; throttle a
        client; rate limit users; set up several tenants; change keys without a restart; give one tenant more weight; isolate
        customers from each other""",
        nouns="""the api key file; a file of api keys; hashed keys; tenants; rate limits; rate limiting; quotas; requests per minute;
        tokens per minute; per key limits; key scopes; multi tenancy; the keys file; limits per tenant; usage quotas; a
        concurrency limit per customer""",
        problems="""one customer uses up everything; the key is visible in the process list; I have many customers with keys of
        their own; each team should get its own limit; a single user floods the server; keys should not be stored in clear
        text; clients get 429; I have too many keys for the command line; one tenant starves the others""",
        asks="""can keys be read from a file; are there rate limits; how do I limit one user; how do I keep tenants apart; can
        keys expire; how do I set requests per minute; is there multi tenancy; why do I get 429 too many requests; can each
        key have its own quota""",
        keys="""key file; keys file; tenants; rate limit; quota; requests per minute; tokens per minute; multi tenant; tenant;
        hashed keys; 429; rpm; tpm; throttle; api key file""",
    ),
    option(
        "metrics-auth",
        "says who may read /metrics: none (everybody) or key (a key with the scope metrics).",
        "--api-key-file keys.toml --metrics-auth key",
        goals="""protect the metrics; require a key for /metrics; hide the metrics from strangers; let only prometheus read the
        metrics; restrict access to the metrics; put authentication on the metrics endpoint; see metrics per tenant; stop
        everybody from reading the statistics""",
        nouns="""access to the metrics; authentication for /metrics; protection of the metrics; who may read the metrics; the
        metrics key; a password for the metrics endpoint; metrics by tenant; private metrics""",
        problems="""anybody can read /metrics; the metrics are public; our metrics should need a token; strangers can scrape
        my statistics""",
        asks="""are the metrics protected; who can read /metrics; can /metrics require a key; how does prometheus log in; how do
        I close the metrics endpoint to outsiders""",
        keys="metrics auth; protect metrics; metrics key; metrics password; private metrics; metrics access; secure metrics",
    ),
    option(
        "metrics-port",
        "serves /metrics on a port of its own, by plain HTTP; the main port then has none.",
        "--metrics-port 9100",
        goals="""serve the metrics on another port; put metrics on port {port}; keep /metrics off the public port; separate the
        metrics from the api; have an extra port for prometheus; scrape the metrics on an internal port; open a monitoring
        port; get metrics by plain http while the api is https""",
        nouns="""the metrics port; a separate port for metrics; the monitoring port; the prometheus port; an own port for
        statistics; an internal metrics port; the port for scraping""",
        problems="""prometheus cannot speak https with it; metrics must not be on the public port; our firewall allows
        prometheus only on port {port}; /metrics is reachable from the internet""",
        asks="""can metrics have their own port; on which port are the metrics; how do I move /metrics to port {port}; can
        prometheus use a different port""",
        keys="metrics port; monitoring port; prometheus port; separate metrics; scrape port; internal port; extra port",
    ),
    option(
        "prefix-cache-scope",
        "says who shares cached prompts: tenant (the default), key or shared (everybody).",
        "--prefix-cache-scope key",
        goals="""share cached prompts between all users; keep cached prompts apart by key; isolate the prefix cache between
        customers; share the prompt cache across tenants; prevent timing attacks on the prompt cache; stop one customer from
        profiting from another's cache; separate the caches of my customers; let all tenants use one prefix cache""",
        nouns="""the scope of the prefix cache; sharing of the prompt cache between tenants; cache isolation; the cache scope; a
        shared prefix cache; timing attacks on the cache; the cache salt; who shares cached prompts""",
        problems="""tenants can find out by timing what others sent; all my tenants have the same system prompt and each
        computes it again; customers must not share a prompt cache; cached prompts leak between users""",
        asks="""is the prompt cache shared between users; who shares the prefix cache; can other users guess my prompts by
        timing; how do I share the prefix cache with everybody; is the prefix cache separate for each tenant""",
        keys="""prefix cache scope; cache scope; cache isolation; shared cache; tenant cache; timing attack; side channel;
        cache salt; cache per tenant""",
    ),
    option(
        "allowed-methods",
        "lists the HTTP methods that web pages of other origins may use (CORS).",
        "--allowed-origins https://app.example --allowed-methods GET,POST",
        goals="""allow only POST from the browser; restrict the cors methods; permit GET and POST for cross origin calls; set
        access-control-allow-methods""",
        nouns="""the cors methods; the allowed http methods; access-control-allow-methods; the methods for cross origin
        requests""",
        problems="""the preflight says the method is not allowed; browsers should only be able to use POST""",
        asks="which http methods may a web page use; can I limit cors to some methods",
        keys="cors methods; allowed methods; http methods; access-control-allow-methods",
    ),
    option(
        "allowed-headers",
        "lists the request headers that web pages of other origins may send (CORS).",
        "--allowed-origins https://app.example --allowed-headers Authorization,Content-Type",
        goals="""allow a custom header from the browser; restrict the cors headers; permit the Authorization header in cross
        origin calls; set access-control-allow-headers""",
        nouns="""the cors headers that are allowed; access-control-allow-headers; the headers for cross origin requests; the
        allowed request headers""",
        problems="""the preflight says the request header field is not allowed; my web page sends a header of its own and is
        blocked""",
        asks="which headers may a web page send; can I limit the cors request headers",
        keys="allowed headers; request header field; access-control-allow-headers; custom header",
    ),
    option(
        "allow-credentials",
        "lets web pages of the --allowed-origins send cookies and other credentials (CORS); * is not enough then.",
        "--allowed-origins https://app.example --allow-credentials",
        goals="""allow cookies in cross origin requests; send credentials from the browser; set access-control-allow-credentials;
        use fetch with credentials include; permit cors with cookies""",
        nouns="""cors credentials; cookies in cross origin calls; access-control-allow-credentials; withCredentials; credentials
        from a web page""",
        problems="""fetch with credentials include fails; the browser does not send my cookie to the server; the value of
        access-control-allow-credentials is empty""",
        asks="can a web page send cookies; how do I allow cors credentials; does withCredentials work",
        keys="cors credentials; cookies; withCredentials; access-control-allow-credentials; credentials include",
    ),
    option(
        "h11-max-incomplete-event-size",
        "limits the head of a request (request line and headers) in bytes; larger ones get 431.",
        "--h11-max-incomplete-event-size 65536",
        goals="""accept larger headers; allow a bigger request head; limit the size of the headers; send very long headers;
        raise the header size limit; allow a long url""",
        nouns="""the header size limit; the size of the request head; the maximum header size; long headers; big cookies; the
        bytes of all headers""",
        problems="""I get 431 because a header is too long; my cookies are too large; request header fields too large; my jwt
        token does not fit into the header""",
        asks="how large may the headers be; why do I get 431; what is the longest header",
        keys="431; header size; large headers; request head; long header; header too large; long cookies",
    ),
    option(
        "h11-max-header-count",
        "limits how many headers a request may have (default 100); more get 431.",
        "--h11-max-header-count 200",
        goals="""allow more headers; limit the number of headers; send more than 100 headers; raise the header count""",
        nouns="""the number of headers; the header count; the maximum number of request headers; how many headers are allowed""",
        problems="""my proxy adds a lot of headers and I get 431; a request with {n} headers too many is refused; there are too
        many headers in my request""",
        asks="how many headers may a request have; what is the most headers allowed",
        keys="header count; number of headers; too many headers; max headers; header limit",
    ),
    refusal(
        "enable-request-id-headers",
        "is always on: every response carries X-Request-Id; a client may send its own.",
        goals="""get the id of a request; trace a request; find a request in the log; return a request id; send my own request
        id; match a response with its log line; correlate requests and logs""",
        nouns="""the request id; x-request-id; request ids; the correlation id; the id header of a response; tracing by
        request id""",
        problems="""I cannot find a certain request in the log; I need an id for each request; support asks for the request id""",
        asks="does a response have a request id; where is the request id; can I send X-Request-Id",
        keys="request id; x-request-id; correlation id; trace id; request ids; traceparent",
    ),
)
