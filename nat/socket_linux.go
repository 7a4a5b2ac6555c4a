package nat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// socket is a netlink socket of the network namespace it was opened in. It is
// not safe for concurrent use. The library's connection is not used because it
// cannot say which message of a batch failed, nor send a batch without one
// acknowledgement a message, which overflow the receive buffer.
type socket struct {
	fd    int
	buf   []byte
	limit int // bytes that fit the send buffer at once
}

// bufferSize is what is asked for in both directions; a batch must fit the
// send buffer as a whole.
const bufferSize = 32 << 20

func openSocket(proto int, groups ...uint32) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, &KernelError{Op: "open netlink socket", Err: err}
	}
	s := &socket{fd: fd, buf: make([]byte, 256<<10)}
	for _, o := range []struct{ force, plain int }{{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.force, bufferSize) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.plain, bufferSize) // capped without an error
		}
	}
	// The kernel doubles the size for its own bookkeeping.
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil {
		s.limit = n / 2
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	if proto == unix.NETLINK_ROUTE {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, &KernelError{Op: "bind netlink socket", Err: err}
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(g)); err != nil {
			unix.Close(fd)
			return nil, &KernelError{Op: "join netlink group", Object: fmt.Sprint(g), Err: err}
		}
	}
	return s, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// message is one received netlink message.
type message struct {
	typ, flags uint16
	seq        uint32
	body       []byte
}

var sequence atomic.Uint32

// build appends one message to b and returns its sequence number.
func build(b []byte, typ, flags uint16, body []byte) ([]byte, uint32) {
	seq := sequence.Add(1)
	return buildSeq(b, typ, flags, seq, body), seq
}

func buildSeq(b []byte, typ, flags uint16, seq uint32, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func (s *socket) send(b []byte) error {
	err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for errors.Is(err, unix.EINTR) {
		err = unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	return err
}

// receive reads one datagram and hands out its messages.
func (s *socket) receive(visit func(message) (done bool)) (bool, error) {
	n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(s.fd, s.buf, 0)
	}
	if err != nil {
		return false, err
	}
	b := s.buf[:n]
	for len(b) >= 16 {
		size := int(binary.NativeEndian.Uint32(b))
		if size < 16 || size > len(b) {
			return false, unix.EBADMSG
		}
		m := message{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:]), b[16:size]}
		if visit(m) {
			return true, nil
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}

// ackError reads an error message: nil for success, else the errno and the
// kernel's words.
func (m message) ackError() (detail string, err error) {
	if len(m.body) < 4 {
		return "", unix.EBADMSG
	}
	code := int32(binary.NativeEndian.Uint32(m.body))
	if code == 0 {
		return "", nil
	}
	if m.flags&unix.NLM_F_ACK_TLVS != 0 && len(m.body) >= 20 {
		tlvs := m.body[20:]
		if m.flags&unix.NLM_F_CAPPED == 0 {
			size := int(binary.NativeEndian.Uint32(m.body[4:]))
			tlvs = m.body[min(4+max(size, 16), len(m.body)):]
		}
		for typ, v := range each(tlvs) {
			if typ == unix.NLMSGERR_ATTR_MSG {
				detail = attrString(v)
			}
		}
	}
	return detail, unix.Errno(-code)
}

// request sends one message and waits for its acknowledgement or its answers.
// A dump ends with DONE, anything else with an acknowledgement.
func (s *socket) request(op, object string, typ, flags uint16, body []byte, visit func(message)) error {
	flags |= unix.NLM_F_REQUEST
	if flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
		flags |= unix.NLM_F_ACK
	}
	b, seq := build(nil, typ, flags, body)
	if err := s.send(b); err != nil {
		return &KernelError{Op: op, Object: object, Err: err}
	}
	var fail error
	interrupted := false
	for {
		done, err := s.receive(func(m message) bool {
			if m.seq != seq {
				return false // left over from a request that was given up
			}
			if m.flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = true
			}
			switch m.typ {
			case unix.NLMSG_DONE:
				if len(m.body) >= 4 {
					if code := int32(binary.NativeEndian.Uint32(m.body)); code < 0 {
						fail = &KernelError{Op: op, Object: object, Err: unix.Errno(-code)}
					}
				}
				return true
			case unix.NLMSG_ERROR:
				if detail, err := m.ackError(); err != nil {
					fail = &KernelError{Op: op, Object: object, Detail: detail, Err: err}
				}
				return true
			}
			if visit != nil {
				visit(m)
			}
			return false
		})
		if err != nil {
			return &KernelError{Op: op, Object: object, Err: err}
		}
		if done {
			if fail == nil && interrupted {
				fail = errInterrupted
			}
			return fail
		}
	}
}

// errInterrupted means that what was dumped changed meanwhile.
var errInterrupted = errors.New("nat: dump interrupted by a change")
