#!/usr/bin/python3
"""A small web service with a hole: its ping page hands what it is given to a shell."""

import subprocess
import urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer


class Shop(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        body = b"welcome\n"
        if url.path == "/ping":
            host = urllib.parse.parse_qs(url.query, encoding="latin-1").get("host", ["127.0.0.1"])[0]
            body = subprocess.run(["sh", "-c", "ping -c1 " + host], capture_output=True).stdout
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


HTTPServer(("0.0.0.0", 8080), Shop).serve_forever()
