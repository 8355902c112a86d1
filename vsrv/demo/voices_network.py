"""Questions in yet other words about addresses, TLS, keys, browsers, limits and logs; see voices_more.py."""

from __future__ import annotations

from vsrv.demo.topic import phrases

NETWORK_VOICES: dict[str, tuple[str, ...]] = {
    name: phrases(block)
    for name, block in {
        "host": """OLLAMA_HOST equivalent; llama-server --host counterpart; why is it stuck on 127.0.0.1; my ipad gets no
        connection although the desktop works fine; podman container published but curl from the host hangs; pod ip refuses
        connections inside the cluster; kubernetes service has endpoints yet nothing answers on the pod address; the raspberry
        should query the big tower downstairs; wsl2: windows cannot reach the server; share it with the flatmates over wifi; put
        it onto the wireguard interface; do not expose it beyond my own pc; is it safe by default or can neighbours see it;
        listen only on {ip}; machine has two ethernet ports, use only the internal one; bind address ipv6 dual stack;
        ERR_CONNECTION_REFUSED from a tablet; no route from the meeting room laptop to my desk server; cannot assign requested
        address; server is invisible for others, only myself see it; wants to be called from other pc, how make; home assistant
        on another device should use it; ec2 instance, security group is open, still unreachable from my home; what is the
        default listening address; any interface; 0.0.0.0 or localhost; only local, please; netstat shows 127.0.0.1:8000 and I
        want *:8000""",
        "port": """uvicorn --port; like OLLAMA_HOST=:11434 but here; ollama uses 11434, can this use the same; drop-in for
        something on :{port}; error: [Errno 98]; bind: address in use, now what; EADDRINUSE; permission denied when I bind to
        80; privileged port below 1024; second instance for staging beside production, it clashes; airflow occupies 8000; mkdocs
        serve is already there; the IT department gave us {port} and nothing else; docker -p {port}:{port} and inside it should
        match; containerPort is {port}; nginx proxy_pass goes to {port}, vsrv must be there; on what number is it waiting; which
        tcp number by default; not 8000; {port} instead; the url must end in :{port}; put it at {port} please; somebody other
        uses already this number; my colleague's jupyter notebook grabbed 8000 this morning, so where can I start mine; ss -ltnp
        shows 8000 taken; different number after the colon; pick random free port 0; well known port for the web""",
        "ssl-certfile": """how do I serve this with TLS 1.3; traffic in wireshark is readable; our auditor found cleartext http
        on the wire; iso 27001 demands encrypted transport; hospital data must travel encrypted; uvicorn --ssl-certfile; nginx
        ssl_certificate, what is it called here; where goes server.crt; pfx from the windows admins converted to pem, which
        option; put in the chain with intermediates; curl: (60) SSL certificate problem, unable to get local issuer; curl: (35)
        wrong version number; NET::ERR_CERT; only http works and https gives ERR_SSL_PROTOCOL_ERROR; the iphone app refuses
        anything but https; service worker needs a secure context; the digicert file for {domain}, how do I install it; I have
        no nginx and still want https; encrypt api traffic without a proxy; kubernetes tls secret mounted at /tls/tls.crt; is my
        chat visible for others on the hotel wifi; https possible or not; tls on; enable transport layer security; make the site
        https please, I am not expert; server presents the wrong certificate; can it offer https itself or do I need caddy;
        secure endpoint for the sales team's phones""",
        "ssl-keyfile": """nginx ssl_certificate_key, what is the name here; tls.key from the kubernetes secret; the second file
        beside the crt; I have crt and key, crt is in, now the key; uvicorn --ssl-keyfile; key values mismatch; key does not
        match the certificate; private part lies in another directory; /etc/letsencrypt/live/{domain}/privkey.pem; which
        parameter for the .key; BEGIN EC PRIVATE KEY file goes where; BEGIN RSA PRIVATE KEY; give path of ssl key; it found the
        certificate but no key; PEM lib error because the key is missing; certificate alone is not enough, it wants the
        counterpart; location of the secret half of the pair; ed25519 key for tls; the admin sent me a zip with three files, one
        is domain.key, what do I do with it; apache SSLCertificateKeyFile; key part for https where to put; does the pem with
        both parts work or do I need a distinct key file; the key that goes along with the cert; hsm exported key path""",
        "ssl-ca-certs": """nginx ssl_client_certificate, what is it here; uvicorn --ssl-ca-certs; which authorities may sign the
        callers' certificates; our pki issues a certificate per device and only those should get in; service mesh peers identify
        by certificate; spiffe style identity; check that the caller was issued by corporate pki; list of accepted issuers for
        callers; bank requires two-way authentication by certificate; the pem with our root and intermediate for verifying
        callers; curl --cert client.pem should be accepted; tlsv1 alert unknown ca when a client presents its cert; unknown ca;
        client cert was signed by an authority it does not know; yubikey certificates; laptop certificates from the domain
        controller as login; both sides show passports, so to speak; trust anchor for incoming connections; ca.crt where;
        identify machines by certs instead of tokens; mutual TLS please; accept certs of our issuing CA; validate peer against
        root; server must verify client's cert chain; client-auth truststore; chain of trust for callers; which CA is believed
        for clients""",
        "api-key": """vllm --api-key; llama-server --api-key; what must I put behind Bearer; OPENAI_API_KEY does not matter or
        does it; curl -H "Authorization: Bearer ..." is ignored, anyone gets in; some kid next door discovered my endpoint;
        crawlers found the url and burn electricity; shodan lists my server; is a password possible; simple shared secret for
        the whole office; only those who know the secret word; I must stop unknown people from sending stuff; client says
        incorrect api key provided; AuthenticationError from the python sdk; www-authenticate header; 401 since this morning;
        put basic protection on; the intern put it online and now it is open, we need at least a token; one shared token for my
        five apps; VSRV key from a kubernetes secret; want that only my family uses it; gatekeeper; shared key; turn away
        callers who have no token; is it open or closed by default; protect from the public; what should I enter as api key in
        open webui""",
        "allow-unauthenticated": """refusing to listen without a key; startup aborts: public address but no api key; it stops
        immediately since I use 0.0.0.0 and no secret; air gapped network, the key requirement is nonsense here; oauth2-proxy in
        front handles logins already; istio does authz, the server must not; vllm never demanded a key, why does this; ollama
        has no password and neither do I want one; hackathon server, no tokens; class room demo where everyone just connects;
        let all in; keyless public server; permit requests that carry no Authorization header; I accept the risk, start open;
        bypass the check that wants a key; the vpn is the protection, leave tokens out; docker compose exits because no key was
        given; container must bind all interfaces but has no secret; no auth please; without any token; how make it not ask for
        key; ignore the missing key; get rid of the complaint about an unprotected address; open bar; insecure mode; only a
        museum kiosk uses it, so no secret; start it unprotected on purpose; is it allowed to be open on the network""",
        "allowed-origins": """vllm --allowed-origins; OLLAMA_ORIGINS; Access to fetch at has been blocked; TypeError: Failed to
        fetch; NetworkError when attempting to fetch resource; postman works, chrome not; svelte dev server on localhost:5173 is
        blocked; next.js page calls it directly and dies; OPTIONS returns 403 in devtools; origin null not allowed; electron app
        with file:// origin; obsidian plugin cannot reach it, origin problem; widget on our wordpress must query the llm; github
        pages demo should reach my server; embed a chat box in the shop site; add {url} to the permitted sites; star for every
        site; which pages get the cors header; let no foreign site use it through a visitor's browser; angular; firefox console:
        same origin policy disallows reading the remote resource; browser denies my page to talk with api; marketing built a
        landing page that talks to the model from javascript and only their page is blocked; add_header
        Access-Control-Allow-Origin in nginx, here how; permitted web sites; streamlit iframe; jupyter notebook javascript
        cannot call the endpoint; excel web add-in""",
        "root-path": """uvicorn --root-path; fastapi root_path; vllm --root-path; llama-server --api-prefix; location {prefix}
        in nginx; {prefix}/v1/models gives not found; 404 on {prefix}/v1/chat/completions; ProxyPass {prefix}; traefik
        PathPrefix; ingress rewrite-target; the service shares the domain with our wiki, so it has only {prefix}; our gateway
        leaves {prefix} in the path; jupyterhub proxy adds /user/me/proxy to the url; /v1 lives deeper on our site; every
        address needs a leading segment; public url is {url}{prefix}; host it not at the top of the domain but in a folder;
        openapi shows wrong urls behind the gateway; context path as in tomcat; base href; the route has extra part in front;
        sub-folder deployment; api gateway with stage name in the path; can I have {prefix} before v1; the one domain we own is
        taken, the boss wants the llm beneath {prefix}; runpod proxy path; prefix for all routes; path not stripped""",
        "uds": """vllm --uds; uvicorn --uds; curl --unix-socket; gunicorn --bind unix: like; proxy_pass http://unix:/run/; ipc
        between two processes without network; sidecar container shares a volume with a socket; docker.sock style; same host
        only, no port at all; let file permissions guard it; chmod 660 on the listening end; no tcp stack; loopback is still too
        open, other users of the box may connect; port numbers ran out, use a file name; serve through /tmp; emptyDir with
        socket for the pod's proxy; pipe instead of port; named socket; can nginx reach it by file; unix:; listen on a file in
        /run; sandbox has no network but I need to query it locally; how do I get a socket file in place of a port; multi user
        machine where only members of one unix group may connect; path to the sock; where does the socket get created; local
        domain socket""",
        "max-body-bytes": """nginx client_max_body_size, the same here; 413 Request Entity Too Large; 413 Payload Too Large;
        content-length exceeds; RequestTooLarge; curl --data-binary @big.json is refused; base64 attachment inflates the json
        beyond what is allowed; post of {gb} megabytes; raise 413 threshold; allowance for json size; maximum bytes of a post;
        max upload size; someone could kill us with a 2 GB post; fend off monster payloads; how heavy can one message be;
        embedding call with a whole book in the json is too big; our crm sends the complete history as one fat json; it does not
        take my file because too many megabytes; tiny limit for bodies because of a small container; shrink what may be posted;
        default size of payload; bodyParser limit; spring multipart max-request-size; kilobytes permitted per request; the
        gateway passes 50 MB but vsrv says no; request weight; large documents bounce with http 413""",
        "keep-alive-timeout": """nginx keepalive_timeout; uvicorn --timeout-keep-alive; gunicorn keepalive; aws alb 60 s idle
        and then 502; RemoteDisconnected: remote end closed connection without response when I reuse a session; ECONNRESET after
        a pause; httpx.RemoteProtocolError server disconnected after the client was quiet; socket hang up in node when the agent
        reuses an old connection; requests.Session breaks after a coffee break; azure load balancer idle reset; sessions sit
        open doing nothing; free sockets that nobody uses; half dead clients hang around; how long is the tcp link held between
        two calls; time until quiet peers are thrown out; reuse of connections expires too early; ESTABLISHED connections with
        no traffic; keepalive seconds; linger; idle sockets; after inactivity the link is cut; hold link open between calls for
        {n} s; connection header keep-alive timeout=5; mobile phones leave connections behind; the connection from the pool was
        stale; between two questions my client must reconnect every time; default 120 seconds of silence; connection pooling and
        server side close""",
        "max-num-queued-reqs": """overload: what happens with request number 2000; 503 Service Unavailable at noon when all
        staff come; how many can stand in line; length of the line, not the time in it; maximum amount of pending jobs; TGI
        max-concurrent-requests; triton max_queue_size; server answers 503 and says busy; retry-after comes back; black friday
        rush, refuse the surplus; reject surplus instead of hoarding it; 1024 waiting and running is too much for my laptop;
        raise the number of calls allowed to pend; admission control; circuit breaker under heavy traffic; keep only {n} in the
        waiting room; hundreds of calls waiting and memory climbs; at what point are new calls refused; waiting list limit;
        listen backlog but for requests; autoscaler should see refusals early; loadtest with 5000 clients yields 503s; tell
        excess callers no at once; how big may the crowd outside the door be; nginx limit_req burst like; queue depth {n};
        number of requests in the system at once, waiting ones included; our batch job dumps 10000 calls at a time and a part is
        refused""",
        "shutdown-timeout": """terminationGracePeriodSeconds; systemd TimeoutStopSec; docker stop -t; uvicorn
        timeout_graceful_shutdown; how do I stop without hurting open answers; helm upgrade tears streams apart; rollout: users
        see half a sentence; pods being evicted lose answers; spot instance gets two minutes notice, use them to finish; the
        server needs half a minute to go away, I want it gone at once; hangs after ctrl+c; waiting for requests to complete;
        kill it softly; let everyone finish talking before lights out; do I need a preStop hook; exit takes long; it does not
        end when I press ctrl c; finish then die; last words of the answer missing after each redeploy; lame duck; maintenance
        window at night, active chats should end properly; time allowed for ongoing answers after stop signal; drain {n} s; soft
        stop; seconds between sigterm and sigkill; connection aborted during update of the server; what becomes of active
        streams when the service is stopped; how long for the farewell""",
        "log-level": """uvicorn --log-level; VLLM_LOGGING_LEVEL; python logging DEBUG; journalctl shows nothing useful; need
        trace of internals for a bug report; support asked me for debug logs; chatter in the console; calm down the output; too
        wordy; print fewer things; warn and above only; just problems, no info; it says nothing, why; journal grows gigabytes
        because of info messages; cloud logging bill is high, log less; systemd journal is full of INFO; --quiet; increase
        severity threshold; more insight into what goes on inside; investigate a strange behaviour, give me all messages; less
        blabla; I don't want see all this info, only errors; shut it up; log.level=error; which levels exist; notebook cell
        drowns in output of the server; make it tell more""",
        "log-format": """fluent-bit; promtail; logstash; gcp cloud logging wants one json object per line; our opensearch cannot
        index plain lines; jq: parse error on the log; regex for log lines is a pain; serilog-like events; ecs fields; logfmt;
        json output on stdout for kubernetes; coloured human text back instead of braces; log in curly braces is hard to read,
        give me plain text; LOG_FORMAT=json; python-json-logger; make each line an object; machine-parsable; splunk ingests
        badly; the compliance team imports logs in a database and needs fields; timestamps and fields as keys; change look of
        log lines; text or json; nginx log_format; docker json logging; ndjson; analysts load the log into pandas; vector.dev
        source""",
        "enable-log-requests": """vllm --enable-log-requests; vllm --disable-log-requests; nginx access_log off; access.log;
        does each call leave a trace; a line per POST; POST /v1/chat/completions 200 lines; stop printing 200 OK; one entry per
        call with status and duration; which client sent what when; gdpr: do not note down each access; record of every call for
        the audit; who hit my server last night; my console scrolls a line with every call, off with that; see incoming traffic;
        list of calls; request lines; nothing appears when I send something, do calls get logged; want to see when somebody
        asks; combined log format; turn off the lines per request; keep errors but no line for a normal call; usage trail; show
        hits; per-request line; ip and status of callers in the log; is the access log on by default; thousands of requests a
        minute and each writes a row, costly""",
        "max-connections": """nginx worker_connections; ulimit -n; OSError: [Errno 24] Too many open files; accept: too many
        open files; file descriptors run out; uvicorn --limit-concurrency; socket count; ten thousand idle browsers attached; a
        bot opens sockets and never sends anything; slow loris attack; connection flood; how many clients may be attached;
        websocket like long-lived streams, thousands open; limit on tcp links; new clients are not accepted, existing ones work;
        connect hangs while old ones are alive; maximum open tcp; cap on simultaneous sockets, not on queued requests; ceiling
        for open links; netstat shows 1024 established; haproxy maxconn; postgres max_connections, similar; raise number of
        sockets; connection ceiling; how much connection it can hold; small container with few descriptors; proxy keeps 2000
        upstream connections; prevent exhaustion of sockets""",
        "ssl-keyfile-password": """nginx ssl_password_file; uvicorn --ssl-keyfile-password; Enter PEM pass phrase: at every
        start; systemd start hangs as it waits for a pass phrase; bad password read; PEM routines: bad decrypt; BEGIN ENCRYPTED
        PRIVATE KEY; Proc-Type: 4,ENCRYPTED; DEK-Info; openssl genrsa -aes256 key; our pki delivers password protected keys;
        unattended start with a locked key; where write password for key; key is ciphered, how do I open it; the tls key is
        locked; pass phrase from vault; supply passphrase by environment for the https key; pkcs8 with password; the p12 came
        with a password and I exported an encrypted pem; it prompts for a phrase in the container and nobody can type; secret
        for the key; password belonging to key.pem; not the api password but that of the private key; decrypt privkey; auditors
        insist that keys on disk are encrypted; key asks password; protected pem; the admin chose a passphrase when he made the
        key""",
        "ssl-cert-reqs": """nginx ssl_verify_client on; uvicorn --ssl-cert-reqs; CERT_NONE, CERT_OPTIONAL or CERT_REQUIRED;
        apache SSLVerifyClient require; peer did not return a certificate; tlsv13 alert certificate required; certificate
        required error in curl; ca file is given yet any caller passes without cert; obligatory client cert; make the caller's
        certificate a must; certificate or goodbye; do not insist on client certs; want it voluntary during migration; phase in
        mtls: first ask, later demand; half of our devices have certs, the rest not yet; health probe of kubernetes has no
        client cert and is refused; level 2 means what; values 0 1 2; how strictly are client certs checked; strictness of
        mutual tls; turn checking of peer certs to mandatory; is showing a cert needed; enforce client auth; need or want client
        auth as in java; clientAuth=want; relax the demand for client certificates; server should hang up on clients without
        cert; require peer cert""",
        "ssl-ciphers": """nginx ssl_ciphers; uvicorn --ssl-ciphers; apache SSLCipherSuite; mozilla intermediate profile; ssllabs
        gives grade B; testssl complains about suites; nessus finding: medium strength ciphers; bsi tr-02102 allowed suites;
        fips approved algorithms only; pci dss scan; no CBC; only ECDHE; perfect forward secrecy; handshake_failure with an
        ancient windows client; sslv3 alert handshake failure; NO_SHARED_CIPHER; ERR_SSL_VERSION_OR_CIPHER_MISMATCH; our old plc
        speaks only AES128-SHA; prefer chacha for phones; which encryption methods are accepted; narrow down algorithms; remove
        weak algorithm from tls; ECDHE-RSA-AES256-GCM-SHA384; HIGH:!aNULL; what ciphers by default; security people gave us a
        table of permitted algorithms; strong crypto only; crypto suites""",
        "enable-ssl-refresh": """vllm --enable-ssl-refresh; cert-manager rotates the secret each month; acme renews at night,
        does the server notice; nginx -s reload for certs, what here; SIGHUP and certificates; kill -HUP after renewal; certbot
        deploy hook; the new pem is there but browsers still see the old expiry; certificate expired although I renewed it; 90
        day certs; short-lived certificates from vault, valid one day; step-ca renew; does it re-read fullchain; must I reboot
        when the cert changes; swap the cert at run time; watch cert files; file watcher for tls, off please; do not reload by
        itself, we change certs in a maintenance window; renewal without interruption; zero downtime renewal; is the cert
        reloaded automatically; auto reload tls; replaced cert not used; notAfter is yesterday and the file is fresh; refresh
        ssl; kubernetes updates the mounted secret, will it be seen; keeping up with new certs; how long until renewed cert is
        active""",
        "forwarded-allow-ips": """uvicorn --forwarded-allow-ips; nginx set_real_ip_from; proxy protocol or X-Forwarded-For;
        X-Real-IP; Forwarded header rfc 7239; audit log has only the gateway address; all lines carry the ip of traefik; every
        user looks the same in the log, 172.17.0.1; docker bridge address in place of the visitor; cloudfront in front, want
        true addresses; ip spoofing by a header; somebody fakes his address with X-Forwarded-For; our elb is 10.0.0.0/8, trust
        that; FORWARDED_ALLOW_IPS; trust proxy as in express; mod_remoteip; which addresses may set forwarded headers; source ip
        lost behind ingress; externalTrafficPolicy; real visitor ip; remote addr is the balancer; who is behind the proxy; see
        where a call truly comes from; believe {ip} as proxy; trusted hops; the police asked for the address of an abuser but we
        only have the proxy's; nginx on unix socket, forward headers ignored; original source address""",
        "api-key-file": """litellm virtual keys, like that; OpenAI style rate limits, rpm and tpm; RateLimitError; 429 Too Many
        Requests, retry later; nginx limit_req per user; one script of the marketing people eats all the capacity; budget per
        department; monthly allowance for a client; different quota for free and paid customers; gold customers before silver
        ones; every student shall have his own key with a small allowance; keys that run out at the end of the term; keys
        readable in docker inspect; secrets visible in ps aux; credentials from a mounted kubernetes secret file; hundred
        customers, hundred keys, no restart when one is added; let intern use embeddings only; scope of a key; at most {n}
        requests in a minute per person; limit {n} parallel calls for one key; tokens per minute {big}; fairness between teams;
        separate billing for two firms on a server; someone hammers us, slow him; per-user throttling; my boss wants that no
        project can take more than its share; a list of keys with owners; many tokens with various rights""",
    }.items()
}
