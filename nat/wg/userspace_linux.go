package wg

import (
	"net"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"
)

// userspace is a device that this process runs over TUN. It is configured, as
// any other, through wgctrl, by its socket in /var/run/wireguard.
type userspace struct {
	dev  *device.Device
	uapi net.Listener
}

func openUserspace(name string) (*userspace, error) {
	t, err := tun.CreateTUN(name, defaultMTU)
	if err != nil {
		return nil, err
	}
	u := &userspace{dev: device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))}
	file, err := ipc.UAPIOpen(name)
	if err == nil {
		u.uapi, err = ipc.UAPIListen(name, file)
	}
	if err == nil {
		err = u.dev.Up()
	}
	if err != nil {
		u.close()
		return nil, err
	}
	go func() {
		for {
			c, err := u.uapi.Accept()
			if err != nil {
				return
			}
			go u.dev.IpcHandle(c)
		}
	}()
	return u, nil
}

func (u *userspace) close() {
	if u.uapi != nil {
		u.uapi.Close()
	}
	u.dev.Close() // the TUN interface goes with it
}
