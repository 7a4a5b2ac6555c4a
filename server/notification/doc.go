// Package notification keeps the messages to the owner and takes them outside.
//
// They stand in the private part of the document, oldest first, at most [Max] of
// them; the number of those not seen yet stands in the public part. An id is
// never given twice.
//
// Each channel (a webhook, a mail address) has a goroutine that sends what is
// new, in order. How far a channel has come stands in the document beside the
// messages, so the list itself is its bounded queue: what was not sent when the
// server ended is sent by the next one. A message that cannot be sent is tried
// again, with growing pauses, and given up after a while; a message may
// therefore arrive twice, with the same id. A webhook is signed as Standard
// Webhooks 1.0 says.
package notification
