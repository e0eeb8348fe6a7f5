[
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /a/b?c=d|e[1]=%20 HTTP/1.0\r\nHost: h\r\n\r\n",
    "GET http://h:80/a HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\ncontent-LENGTH: \t5 \t\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nUpgrade: x\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0A\r\nhelloworld\r\n000\r\nX-Sum: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nX: a\tb \u{e9}\r\nY:\r\n\r\n",
    "M-SEARCH / HTTP/1.1\r\nHost: h\r\n\r\n",
    "DELETE / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
]
