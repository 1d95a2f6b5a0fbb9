"""Every sentence of the detector's page, in English; the Japanese is in `locale/ja/alert_page.po`."""

from typing import Final

from ukihashi.errors import N_

ALERT: Final = {
    "title": N_("Tunnels on this network"),
    "parts": N_("Parts of this page"),
    "nav_findings": N_("Findings"),
    "nav_allow": N_("Allow list"),
    "nav_judge": N_("Judge a file"),
    "cut": N_(
        "The command that serves this page does not answer any more. What stands here is as it was last. Start it again"
        " and open the address that it prints."
    ),
    # how the sensor stands
    "watching": N_("The sensor listens on {cards}, for {span} so far."),
    "gone": N_(
        "No sensor since {time}. Nothing is being watched. This page goes on by itself as soon as one runs again."
    ),
    "never": N_("No sensor yet. Start one with `ukihashi alert -i CARD`; this page shows it by itself."),
    "alive": N_("Tunnels alive now"),
    "total": N_("Tunnels found"),
    "seen": N_("Share of the traffic seen"),
    "lost": N_("Packets lost, last minute"),
    "rate": N_("Packets a second"),
    "flows": N_("Connections known"),
    "history": N_("Can silence be trusted?"),
    "history_lead": N_(
        "Each bar is a minute of the last hour. A full bar: the sensor saw all traffic. A short, coloured bar: packets"
        " were lost, and a tunnel may have passed unseen. No bar: no sensor ran."
    ),
    "history_alt": N_("{known} of the last 60 minutes were watched; the lowest share seen was {least}."),
    "history_none": N_("None of the last 60 minutes was watched so far."),
    "hour_ago": N_("an hour ago"),
    "now": N_("now"),
    # the list
    "began": N_("Began"),
    "tunnel": N_("Tunnel"),
    "way": N_("Way"),
    "client": N_("Client"),
    "server": N_("Server"),
    "verdict": N_("Verdict"),
    "state": N_("State"),
    "list_none": N_("Nothing found so far. How far that can be trusted is what the share of traffic seen says."),
    "list_hidden": N_("Only probable, and not shown: {count}."),
    "list_show": N_("Show them, too"),
    "list_hide": N_("Hide what is only probable"),
    "meaning": N_("What the words mean"),
    "meaning_tunnel": N_(
        "A tunnel (VPN) carries a whole network inside one connection that looks like any other. The detector knows"
        " SoftEther VPN and ukihashi by the rhythm and the sizes of what is sent, never by its content."
    ),
    "word_confirmed": N_("confirmed"),
    "word_probable": N_("probable"),
    "word_allowed": N_("allowed"),
    "meaning_confirmed": N_("Several independent traits fit. False alarms are rare, and still possible."),
    "meaning_probable": N_("Some traits fit; more has not been seen yet. Often it becomes confirmed, or nothing."),
    "meaning_allowed": N_("The allow list knows it, so there is no alarm."),
    "meaning_way": N_(
        "Whether the client talks to the server itself (direct), or through an HTTP proxy, a SOCKS proxy or an SSH"
        " connection. Then the server shown is that proxy, and the real one may be unknown."
    ),
    # one finding
    "finding_title": N_("{family} tunnel, {way}"),
    "finding_lead": N_("{client} talks to {server}."),
    "finding_gone": N_("This finding is not known any more: the sensor was started again, or there were many since."),
    "all_findings": N_("All findings"),
    "target": N_("Asked of the proxy"),
    "connections": N_("TCP connections"),
    "decided": N_("Decided"),
    "decided_after": N_("{time}, {span} after it began"),
    "odds": N_("All together"),
    "capture_lost": N_("{lost} bytes of its traffic were missed; the verdict allows for that."),
    "allowed_by": N_("Allowed by {owner} until {expires}: {reason}"),
    "why": N_("Why"),
    "why_lead": N_(
        "The reasons, the weightiest first. What one of them says by itself may be chance; together they rarely are."
    ),
    "measured": N_("Measured"),
    "timeline": N_("What was seen when"),
    "ladder": N_("How it began"),
    "ladder_lead": N_(
        "Client and server take turns. An arrow is everything that one side sent until the other one answered; coloured"
        " arrows are those that make a login to a virtual hub."
    ),
    "ladder_alt": N_("Turns of client and server with their bytes; the table below has the same."),
    "strip": N_("Afterwards"),
    "strip_lead": N_(
        "Messages after a silence, by the seconds since the connection began. Above the line from the client, below it"
        " from the server; a taller bar is a larger message. A tunnel's own clock shows as messages of random size,"
        " every few seconds, each side for itself."
    ),
    "strip_alt": N_("{count} messages after silences in {seconds} seconds; the table below has the same."),
    "connection_no": N_("connection {count}"),
    "begins": N_("begins"),
    "to_server": N_("from the client"),
    "to_client": N_("from the server"),
    "bytes": N_("{count} bytes"),
    "after_silence": N_("after {seconds} s of silence"),
    "as_table": N_("The same as a table"),
    "time_s": N_("Seconds"),
    "direction": N_("Direction"),
    "size": N_("Bytes"),
    "note": N_("What it is"),
    "changes": N_("What would have changed the verdict"),
    "changes_lead": N_("The packets were judged again, each time with one thing changed."),
    "next": N_("What to do next"),
    "next_lead": N_("For who manages this network. Finding a tunnel is the smaller part."),
    "evidence": N_("Evidence"),
    "evidence_lead": N_(
        "The sensor wrote a bundle: the packets' headers, the reasons, this drawing, and a signature that shows whether"
        " anything was changed later. `ukihashi alert verify FILE` checks it."
    ),
    "download": N_("Download the bundle"),
    "as_json": N_("As JSON, for programs"),
    # the allow list
    "allow_this": N_("Allow this tunnel"),
    "allow_this_lead": N_(
        "Then it raises no alarm until the last day. It stays visible in the list of findings, as allowed."
    ),
    "allow": N_("Allow it"),
    "allow_title": N_("The allow list"),
    "allow_lead": N_(
        "Tunnels that are known and allowed. They raise no alarm, but stay visible. Every entry has somebody who"
        " answers for it, a reason, and a last day; after that day the alarm is back."
    ),
    "allow_none": N_("The list is empty: every tunnel raises an alarm."),
    "allow_add": N_("Add an entry"),
    "add": N_("Add"),
    "added": N_("The entry was added."),
    "removed": N_("The entry was removed. The next such tunnel raises an alarm."),
    "remove": N_("Remove"),
    "port": N_("Port"),
    "owner": N_("Owner"),
    "reason": N_("Reason"),
    "expires": N_("Last day"),
    "expired": N_("over since {date}"),
    "any": N_("any"),
    "client_hint": N_("An address or a network, such as 192.168.1.20 or 192.168.1.0/24."),
    "server_hint": N_("An address or a network; empty: any."),
    "port_hint": N_("1 to 65535; empty: any."),
    "owner_hint": N_("Who answers for it."),
    "reason_hint": N_("Why it may stay, for who reads this in a year."),
    # judging a file
    "judge_title": N_("Judge a capture file"),
    "judge_lead": N_(
        "Drop a recording of network traffic here, or choose one: pcap or pcapng, gzip too, up to {limit}. A process of"
        " this machine without rights reads it as it arrives. It is written nowhere."
    ),
    "choose": N_("Choose a file"),
    "drop": N_("or drop it into this frame"),
    "needs_script": N_("This needs JavaScript. Without it: `ukihashi alert -r FILE --explain`."),
    "judging": N_("Reading {name}"),
    "progress": N_("{taken} of {size}, {packets} packets; tunnels so far: {count}"),
    "progress_open": N_("{taken}, {packets} packets; tunnels so far: {count}"),
    "stop": N_("Stop"),
    "result_found": N_("{name}: tunnels found: {count}"),
    "result_none": N_("{name}: no tunnel found"),
    "result_failed": N_("{name}: not read to its end"),
    "result_stopped": N_("{name}: stopped"),
    "result_figures": N_("{packets} packets in {flows} TCP connections, read in {span}."),
    "result_missed": N_("{missed} bytes are missing in the recording, so something in it may be unseen."),
    "result_before": N_("What was found before that stands below."),
    "forget": N_("Forget the result"),
    "closed_title": N_("This page is not open to you"),
    "closed_text": N_(
        "Open the address that `ukihashi alert web` printed last. Each works once, for one browser, and the next one is"
        " printed when it was used."
    ),
    "wrong_title": N_("This did not work"),
}
