# One shadow node with its volume, one etcd member with its volume, and managers behind a load balancer.

locals {
  etcd_endpoints = join(",", [for address in values(var.settings.etcd_members) : "${address}:2379"])
  secret_name    = "/${var.settings.cluster}/${var.region}/secret"

  install = templatefile("${path.module}/templates/install.sh.tftpl", {
    package     = var.settings.package
    secret_name = local.secret_name
    region      = var.region
  })

  mount = file("${path.module}/templates/mount.sh")
}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
}

resource "aws_ssm_parameter" "secret" {
  name  = local.secret_name
  type  = "SecureString"
  value = var.secret
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "secret" {
  statement {
    actions   = ["ssm:GetParameter"]
    resources = [aws_ssm_parameter.secret.arn]
  }
}

resource "aws_iam_role" "instance" {
  name_prefix        = "${local.name}-"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "secret" {
  role   = aws_iam_role.instance.id
  policy = data.aws_iam_policy_document.secret.json
}

resource "aws_iam_instance_profile" "instance" {
  name_prefix = "${local.name}-"
  role        = aws_iam_role.instance.name
}

# The node. Its volume outlives the instance: a new instance with the old volume is the same replica.

resource "aws_ebs_volume" "node" {
  availability_zone = aws_subnet.this[0].availability_zone
  type              = "gp3"
  size              = var.settings.data_volume.size_gib
  iops              = var.settings.data_volume.iops
  throughput        = var.settings.data_volume.throughput_mib_s
  encrypted         = true
  tags              = { Name = "${local.name}-node" }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_instance" "node" {
  ami                    = data.aws_ssm_parameter.image.value
  instance_type          = var.settings.node_instance_type
  subnet_id              = aws_subnet.this[0].id
  private_ip             = var.addresses.node
  vpc_security_group_ids = [aws_security_group.inner.id]
  iam_instance_profile   = aws_iam_instance_profile.instance.name
  tags                   = { Name = "${local.name}-node" }

  user_data = templatefile("${path.module}/templates/node.sh.tftpl", {
    install = local.install
    mount   = local.mount
    name    = "node-${var.region}"
    region  = var.region
    cluster = var.settings.cluster
    address = var.addresses.node
  })

  metadata_options {
    http_tokens = "required"
  }

  lifecycle {
    ignore_changes = [ami]
  }
}

resource "aws_volume_attachment" "node" {
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.node.id
  instance_id = aws_instance.node.id
}

# etcd

resource "aws_ebs_volume" "etcd" {
  availability_zone = aws_subnet.this[0].availability_zone
  type              = "gp3"
  size              = 20
  encrypted         = true
  tags              = { Name = "${local.name}-etcd" }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_instance" "etcd" {
  ami                    = data.aws_ssm_parameter.image.value
  instance_type          = var.settings.etcd_instance_type
  subnet_id              = aws_subnet.this[0].id
  private_ip             = var.addresses.etcd
  vpc_security_group_ids = [aws_security_group.inner.id]
  tags                   = { Name = "${local.name}-etcd" }

  user_data = templatefile("${path.module}/templates/etcd.sh.tftpl", {
    mount   = local.mount
    version = var.settings.etcd_version
    name    = "etcd-${var.region}"
    address = var.addresses.etcd
    cluster = var.settings.cluster
    members = join(",", [for name, address in var.settings.etcd_members : "${name}=http://${address}:2380"])
  })

  metadata_options {
    http_tokens = "required"
  }

  lifecycle {
    ignore_changes = [ami]
  }
}

resource "aws_volume_attachment" "etcd" {
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.etcd.id
  instance_id = aws_instance.etcd.id
}

# Managers hold no durable state: any number, replaced at will.

resource "aws_launch_template" "manager" {
  name_prefix   = "${local.name}-manager-"
  image_id      = data.aws_ssm_parameter.image.value
  instance_type = var.settings.manager_instance_type

  iam_instance_profile {
    name = aws_iam_instance_profile.instance.name
  }

  network_interfaces {
    associate_public_ip_address = true
    security_groups             = [aws_security_group.inner.id, aws_security_group.clients.id]
  }

  metadata_options {
    http_tokens = "required"
  }

  user_data = base64encode(templatefile("${path.module}/templates/manager.sh.tftpl", {
    install    = local.install
    region     = var.region
    cluster    = var.settings.cluster
    etcd       = local.etcd_endpoints
    node       = "${var.addresses.node}:7600"
    public_url = var.settings.public_url
    access     = var.settings.require_auth ? "--require-auth" : "--allow-anonymous"
  }))
}

resource "aws_autoscaling_group" "managers" {
  name_prefix               = "${local.name}-manager-"
  min_size                  = var.settings.managers
  max_size                  = var.settings.managers
  vpc_zone_identifier       = aws_subnet.this[*].id
  target_group_arns         = [aws_lb_target_group.clients.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 300

  launch_template {
    id      = aws_launch_template.manager.id
    version = aws_launch_template.manager.latest_version
  }

  instance_refresh {
    strategy = "Rolling"
  }

  tag {
    key                 = "Name"
    value               = "${local.name}-manager"
    propagate_at_launch = true
  }
}

resource "aws_lb" "clients" {
  name_prefix        = "shdwq-"
  load_balancer_type = "network"
  internal           = var.settings.internal
  subnets            = aws_subnet.this[*].id
}

resource "aws_lb_target_group" "clients" {
  name_prefix          = "shdwq-"
  port                 = 9324
  protocol             = "TCP"
  vpc_id               = aws_vpc.this.id
  deregistration_delay = 30

  health_check {
    protocol            = "HTTP"
    port                = 9424
    path                = "/readyz"
    interval            = 5
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "clients" {
  load_balancer_arn = aws_lb.clients.arn
  port              = var.certificate_arn == "" ? 9324 : 443
  protocol          = var.certificate_arn == "" ? "TCP" : "TLS"
  certificate_arn   = var.certificate_arn == "" ? null : var.certificate_arn
  ssl_policy        = var.certificate_arn == "" ? null : "ELBSecurityPolicy-TLS13-1-2-2021-06"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.clients.arn
  }
}
