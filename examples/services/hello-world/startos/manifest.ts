import { setupManifest } from '@start9labs/start-sdk'

export const manifest = setupManifest({
  id: 'hello-world',
  title: 'Hello World',
  license: 'MIT',
  packageRepo: 'https://github.com/selfstead/selfstead/tree/main/examples/services/hello-world',
  upstreamRepo: 'https://git.busybox.net/busybox',
  marketingUrl: 'https://busybox.net',
  donationUrl: null,
  description: {
    short: 'A page that greets you',
    long: 'One small web page, served by BusyBox. It shows each part of a service: an image, a volume, a web interface, a health check and an action with a form.',
  },
  volumes: ['main'],
  images: {
    web: { source: { dockerBuild: {} }, arch: ['x86_64', 'aarch64'], emulateMissingAs: null },
  },
  dependencies: {},
})
