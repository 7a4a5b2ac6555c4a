import * as fs from 'node:fs'
import * as path from 'node:path'

// What stands in service.json beside this program: service.yaml after it was
// checked, with its defaults filled in. Times are milliseconds.

export type Description = {
  id: string
  title: string
  version: string
  releaseNotes: string | Record<string, string>
  license: string
  description: { short: string | Record<string, string>; long: string | Record<string, string> }
  links: { package: string; upstream: string; marketing: string | null; donation: string | null }
  images: Record<string, { arch: string[]; emulateMissingAs: string | null; nvidia: boolean }>
  volumes: string[]
  hardware: { ram: number | null; gpu: boolean; fuse: boolean; tun: boolean }
  config: Config | null
  files: TemplateFile[]
  processes: Process[]
  health: (Check & { id: string; name: string; process: string; requires: string[] })[]
  interfaces: Interface[]
  actions: Action[]
  tasks: { action: string; severity: 'optional' | 'important' | 'critical'; reason: string }[]
  dependencies: Record<string, Dependency>
  alerts: { install: string | null; update: string | null; restore: string | null }
  backup: { volumes: string[]; exclude: string[] }
}

export type Config = { name: string; description: string; volume: string; path: string; form: Form }

export type TemplateFile = { volume: string; path: string; content: string; mode: string; keep: boolean }

export type Mount = {
  volume: string | null
  assets: boolean
  dependency: string | null
  path: string | null
  at: string
  readonly: boolean
  file: boolean
}

export type Surroundings = {
  image: string
  user: string | null
  workdir: string | null
  env: Record<string, string>
  mounts: Mount[]
}

export type Process = Surroundings & {
  id: string
  oneshot: boolean
  init: boolean
  /** null: the image's own entrypoint, with args in the place of its command where they are given */
  command: string | string[] | null
  args: string[] | null
  requires: string[]
  stopTimeout: number
  ready: (Check & { name: string | null }) | null
}

export type Check = {
  port: number | null
  http: { port: number; path: string; tls: boolean; status: number[] } | null
  exec: string[] | null
  success: string
  failure: string
  grace: number | null
  interval: number | null
  timeout: number
}

export type Interface = {
  id: string
  host: string
  name: string
  description: string
  type: 'ui' | 'api' | 'p2p'
  port: number
  protocol: 'http' | 'https' | 'ws' | 'wss' | 'ssh' | 'dns' | 'tcp' | 'tls' | 'udp'
  externalPort: number | null
  path: string
  username: string | null
  masked: boolean
}

export type Action = Surroundings & {
  id: string
  name: string
  description: string
  warning: string | null
  group: string | null
  when: 'any' | 'only-running' | 'only-stopped'
  hidden: boolean
  access: 'user' | 'dependent' | 'public'
  form: Form
  command: string | string[]
  stdin: string | null
  timeout: number
  restart: boolean
  result: { kind: 'none' | 'text' | 'json'; title: string; message: string | null; copyable: boolean; qr: boolean; masked: boolean }
}

export type Dependency = {
  description: string | null
  optional: boolean
  running: boolean
  version: string
  healthChecks: string[]
  title: string | null
  icon: string | null
}

export type Form = Field[]

export type Field = {
  id: string
  type: 'text' | 'textarea' | 'number' | 'toggle' | 'select' | 'multiselect' | 'color' | 'datetime' | 'list'
  name: string
  description: string | null
  warning: string | null
  required: boolean
  default: unknown
  placeholder: string | null
  minLength: number | null
  maxLength: number | null
  patterns: { regex: string; description: string }[]
  masked: boolean
  inputmode: 'text' | 'email' | 'tel' | 'url'
  generate: { charset: string; len: number } | null
  min: number | null
  max: number | null
  integer: boolean
  step: number | null
  units: string | null
  values: Record<string, string>
}

export const description: Description = JSON.parse(fs.readFileSync(path.join(__dirname, 'service.json'), 'utf8'))
