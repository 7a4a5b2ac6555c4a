package nat

type monitor struct{}

func openMonitor(c *Controller) (*monitor, error)   { return &monitor{}, nil }
func (m *monitor) stop()                            {}
func (c *Controller) beforeSwitch() error           { return nil }
func (c *Controller) afterSwitch() error            { return nil }
func (c *Controller) sweep() error                  { return nil }
func (c *Controller) undoRecords(*tableState) error { return nil }
func (t *tableState) forwards() []Forward           { return nil }
