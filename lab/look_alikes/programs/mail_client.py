"""Submits mail again and again: mail_client.py ROOT ADDRESS PORT."""

import random
import smtplib
import ssl
import sys
import time

root, address, port = sys.argv[1:]
while True:
    with smtplib.SMTP(address, int(port), local_hostname="client.lab") as link:
        link.starttls(context=ssl.create_default_context(cafile=root))
        for _ in range(random.randrange(1, 4)):
            body = "Subject: words\r\n\r\n" + "words " * random.randrange(20, 4000)
            link.sendmail("taro@lab.invalid", ["hana@lab.invalid"], body)
            time.sleep(random.uniform(1, 5))
    time.sleep(random.uniform(1, 6))
