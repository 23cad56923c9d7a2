variable "cluster" {
  description = "Name of the cluster: etcd keys lie under it, and resources are named after it."
  type        = string
  default     = "shadowq"
}

variable "regions" {
  description = "The three AWS regions. Changing one after the first apply means moving that region's data."
  type        = object({ a = string, b = string, c = string })
  default     = { a = "us-east-1", b = "us-east-2", c = "us-west-2" }
}

variable "package" {
  description = "What pip installs on the instances: a URL of a wheel or source archive, or a requirement."
  type        = string
}

variable "secret" {
  description = "What managers and nodes prove to each other that they belong together: at least 16 characters, e.g. of: openssl rand -hex 32."
  type        = string
  sensitive   = true

  validation {
    condition     = length(var.secret) >= 16
    error_message = "The secret needs at least 16 characters."
  }
}

variable "public_url" {
  description = "What queue URLs begin with, e.g. https://queues.example.com: a name that leads clients to any region. Empty: the Host of each request."
  type        = string
  default     = ""
}

variable "require_auth" {
  description = "Refuse requests that are not signed with a known access key. If false, client_cidrs is all that keeps strangers out."
  type        = bool
  default     = true
}

variable "client_cidrs" {
  description = "Networks from which clients may connect, besides the cluster's own."
  type        = list(string)
  default     = []
}

variable "internal" {
  description = "Load balancers with private addresses only."
  type        = bool
  default     = true
}

variable "certificate_arns" {
  description = "ACM certificate per region (keys a, b, c), for HTTPS on port 443. Without one the load balancer listens on 9324, unencrypted."
  type        = map(string)
  default     = {}
}

variable "node_instance_type" {
  description = "Instance type of the shadow nodes."
  type        = string
  default     = "m7i.large"
}

variable "manager_instance_type" {
  description = "Instance type of the Distribution Managers."
  type        = string
  default     = "c7i.large"
}

variable "etcd_instance_type" {
  description = "Instance type of the etcd members."
  type        = string
  default     = "t3.small"
}

variable "managers_per_region" {
  description = "Distribution Managers in each region."
  type        = number
  default     = 2
}

variable "data_volume" {
  description = "Each node's data volume: every acknowledged message waits for its fsync."
  type        = object({ size_gib = number, iops = number, throughput_mib_s = number })
  default     = { size_gib = 100, iops = 6000, throughput_mib_s = 250 }
}

variable "etcd_version" {
  description = "etcd release to install from GitHub."
  type        = string
  default     = "3.5.21"
}
